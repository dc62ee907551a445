package foreign

// subset describes endpoints and pods in OpenAPI, as far as these tests need
// it: by hand, from RunPod's documentation, for machines without RunPod's file.
const subset = `{
"openapi": "3.1.0", "info": {"title": "a subset", "version": "1"}, "paths": {},
"components": {"schemas": {
  "Endpoint": {"type": "object", "required": ["id", "name", "workers", "scaling", "dataCenterIds", "networkVolumes", "timeout", "flashboot", "createdAt"],
    "properties": {
      "id": {"type": "string"}, "name": {"type": "string"}, "type": {"type": "string", "enum": ["QUEUE", "LOAD_BALANCER"]},
      "image": {"type": "string"}, "args": {"type": "string"}, "disk": {"type": "integer", "minimum": 1},
      "env": {"type": "object", "additionalProperties": {"type": "string"}}, "registry": {"type": ["string", "null"]},
      "gpu": {"anyOf": [{"$ref": "#/components/schemas/Gpus"}, {"type": "null"}]},
      "cpu": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Cpu"}},
      "workers": {"type": "object", "additionalProperties": false, "required": ["min", "max"], "properties": {
        "min": {"type": "integer", "minimum": 0}, "max": {"type": "integer", "minimum": 0},
        "idleTimeout": {"type": "integer", "minimum": 1, "maximum": 3600}}},
      "scaling": {"oneOf": [
        {"type": "object", "additionalProperties": false, "required": ["type", "queueDelay"],
          "properties": {"type": {"type": "string", "enum": ["QUEUE_DELAY"]}, "queueDelay": {"type": "number", "minimum": 0.5}}},
        {"type": "object", "additionalProperties": false, "required": ["type", "requestCount"],
          "properties": {"type": {"type": "string", "enum": ["REQUEST_COUNT"]}, "requestCount": {"type": "integer", "minimum": 1}}}]},
      "dataCenterIds": {"type": "array", "items": {"type": "string"}}, "networkVolumes": {"type": "array", "items": {"type": "string"}},
      "timeout": {"type": "integer"}, "flashboot": {"type": "string", "enum": ["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"]},
      "createdAt": {"type": "string", "format": "date-time"}}},
  "Gpus": {"type": "object", "required": ["pools"], "properties": {
    "pools": {"type": "array", "items": {"type": "string"}}, "count": {"type": "integer", "minimum": 1}}},
  "Cpu": {"type": "object", "required": ["id", "vcpuCount"], "properties": {
    "id": {"type": "string", "minLength": 1}, "vcpuCount": {"type": "integer", "minimum": 2}}},
  "Utilization": {"type": "object", "properties": {"util": {"type": "integer"}}},
  "Pod": {"type": "object", "required": ["id", "name", "status", "image", "env", "cloud", "dataCenterId", "cost", "runtime", "createdAt", "startedAt"],
    "properties": {
      "id": {"type": "string"}, "name": {"type": "string"},
      "status": {"type": "string", "enum": ["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"]},
      "image": {"type": "string"}, "args": {"type": "string"}, "env": {"type": "object", "additionalProperties": {"type": "string"}},
      "gpu": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "count": {"type": "integer", "minimum": 1}}},
      "cpu": {"$ref": "#/components/schemas/Cpu"}, "cloud": {"type": "string", "enum": ["SECURE", "COMMUNITY"]},
      "dataCenterId": {"type": ["string", "null"]}, "cost": {"type": "number"},
      "runtime": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {
        "uptime": {"type": "integer"}, "cpu": {"$ref": "#/components/schemas/Utilization"}, "memory": {"$ref": "#/components/schemas/Utilization"},
        "gpus": {"type": "array", "items": {"type": "object", "properties": {"util": {"type": "integer"}, "memoryUtil": {"type": "integer"}}}}}}]},
      "createdAt": {"type": "string", "format": "date-time"}, "startedAt": {"type": ["string", "null"], "format": "date-time"}}}
}}}`

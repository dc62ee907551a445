#!/bin/sh
# Starts Redis with redis.conf and the users of users.acl, which lie beside this.
# Of the alerter's password Redis is given the hash. Arguments are passed on.
set -eu
here=$(dirname "$0")
secrets=${SECRETS:-/run/secrets}
users=${TMPDIR:-/tmp}/users.acl

# The alerter reads the same file without the line's end.
password=$(tr -d '\r\n' <"$secrets/redis_alerter")
if [ -z "$password" ]; then
  echo "the secret redis_alerter is empty: write a password into its file, or remove the file and run deploy/new-secrets" >&2
  exit 2
fi
hash=$(printf '%s' "$password" | sha256sum | cut -c 1-64)
umask 077
sed "s/PASSWORD_HASH/#$hash/" "$here/users.acl" >"$users"
exec redis-server "$here/redis.conf" --aclfile "$users" "$@"

#!/bin/sh
# Starts NATS with nats.conf, which lies beside this, and the users' passwords. As
# variables of this process they show in neither "docker inspect" nor the
# configuration. Arguments are passed on.
set -eu
here=$(dirname "$0")
secrets=${SECRETS:-/run/secrets}

password() {
  text=$(cat "$secrets/$1")
  case $text in
    '') echo "the secret $1 is empty: write a password into its file, or remove the file and run deploy/new-secrets" >&2; exit 2 ;;
    *[!A-Za-z0-9._~+/=-]*) echo "the secret $1 may hold letters, digits and . _ ~ + / = - only" >&2; exit 2 ;;
  esac
  # In quotes, or NATS would read some as numbers.
  printf '"%s"' "$text"
}

COLLECTOR_PASSWORD=$(password nats_collector)
ALERTER_PASSWORD=$(password nats_alerter)
NOTIFIER_PASSWORD=$(password nats_notifier)
export COLLECTOR_PASSWORD ALERTER_PASSWORD NOTIFIER_PASSWORD
exec nats-server --config "$here/nats.conf" "$@"

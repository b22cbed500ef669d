#!/bin/sh
# Generate the passwords that kustomization.yaml in this directory puts into Secrets.
#
#   manifests/credentials/generate.sh             random ones; existing files are kept
#   SUPERUSER_PASSWORD=... generate.sh            for a cluster that already has its password
set -eu
cd "$(dirname "$0")"
umask 077

# Letters and digits only: nothing here needs quoting in a userlist, a pgpass file or a URL.
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { [ -s "$1" ] || printf '%s' "$2" >"$1"; }

case ${SUPERUSER_PASSWORD-} in
*[\":\\]*) echo "generate.sh: SUPERUSER_PASSWORD with \", : or \\ : write userlist.txt and pgpass by hand" >&2; exit 1 ;;
?*) printf '%s' "$SUPERUSER_PASSWORD" >superuser-password ;;
esac
keep superuser-password "$(random)"
keep replication-password "$(random)"
keep pgbouncer-admin-password "$(random)"

# serve of the members: its certificate, which is its own authority, and its tokens: one for operators, and
# one by which members read from each other.
keep operator-token "$(random)"
keep member-token "$(random)"
printf '%s\n' "operator operate $(cat operator-token)" "member read $(cat member-token)" >tokens
[ -s tls.crt ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
	-subj /CN=pgbaton -addext 'subjectAltName=DNS:*.cluster-members,DNS:localhost,IP:127.0.0.1' \
	-keyout tls.key -out tls.crt 2>/dev/null

# What follows contains the passwords above in the format of their readers.
printf '"%s" "%s"\n' \
	postgres "$(cat superuser-password)" \
	pgbouncer_admin "$(cat pgbouncer-admin-password)" >userlist.txt
# For the primary's Service, and for the other members: their pods' addresses change.
printf '*:5432:*:postgres:%s\n' "$(cat superuser-password)" >pgpass

#!/bin/sh
# Answers one HTTP request on standard input, from what the cluster says now.
k() { /host/kubectl --namespace cattle-system "$@"; }

say() { # status, type, body
    printf 'HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' \
        "$1" "$2" "$(printf %s "$3" | wc -c)" "$3"
    exit 0
}
json() { say "$1" application/json "$2"; }

# A value of a flat JSON object; the passwords that are tried have no quotes or backslashes.
field() { printf %s "$body" | sed -n 's/.*"'"$1"'"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p'; }

known() { # whether the request has a token that a login gave
    [ -n "$token" ] && [ -e "/tmp/tokens/$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)" ]
}

login() {
    sum=$(field password | tr -d '\n' | sha256sum | cut -d ' ' -f 1)
    right=$(k get secret standin-admin -o 'go-template={{.data.sum | base64decode}}')
    if [ "$(field username)" != admin ] || [ "$sum" != "$right" ]; then
        json '401 Unauthorized' '{"type":"error","status":"401","message":"authentication failed"}'
    fi
    new="token-$(head -c 3 /dev/urandom | od -An -tx1 | tr -d ' \n'):$(head -c 27 /dev/urandom | od -An -tx1 | tr -d ' \n')"
    : > "/tmp/tokens/$(printf %s "$new" | sha256sum | cut -d ' ' -f 1)"
    json '201 Created' '{"type":"token","userId":"user-standin","token":"'"$new"'"}'
}

setting() { # name, value
    json '200 OK' '{"type":"setting","id":"'"$1"'","name":"'"$1"'","value":"'"$2"'"}'
}

read -r method path _ || exit 0
length=0 token=
while read -r name value; do
    value=$(printf %s "$value" | tr -d '\r')
    case $(printf %s "$name" | tr 'A-Z\r' 'a-z ') in
        ' ' | '') break ;;
        content-length:) length=$value ;;
        authorization:) token=${value#Bearer } ;;
    esac
done
body=$([ "$length" -gt 0 ] && head -c "$length")

case "$method ${path%%\?*}" in
    'GET /ping') say '200 OK' text/plain pong ;;
    'GET /healthz') say '200 OK' text/plain ok ;;
    'POST /v3-public/localProviders/local') login ;;
    'GET /v3/settings/first-login') setting first-login "${CATTLE_FIRST_LOGIN:-true}" ;;
esac
known || json '401 Unauthorized' '{"type":"error","status":"401","message":"must authenticate"}'
case "$method ${path%%\?*}" in
    'POST /v3/tokens')
        rm -f "/tmp/tokens/$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)"
        json '200 OK' '{}'
        ;;
    'GET /v3/settings/server-url') setting server-url "${CATTLE_SERVER_URL:-}" ;;
    'GET /v3/settings/eula-agreed') setting eula-agreed "${CATTLE_EULA_AGREED:-}" ;;
    'GET /v3/clusters/local')
        state=unavailable
        [ "$(k get --raw /readyz 2>&1)" = ok ] && state=active
        nodes=$(k get nodes --no-headers | wc -l)
        json '200 OK' '{"type":"cluster","id":"local","state":"'"$state"'","nodeCount":'"$nodes"'}'
        ;;
    'GET /v3/nodes')
        json '200 OK' "$(k get nodes -o 'go-template={"type":"collection","data":[{{range $i, $n := .items}}{{if $i}},{{end}}{"type":"node","clusterId":"local","nodeName":"{{$n.metadata.name}}"}{{end}}]}')"
        ;;
    *) json '404 Not Found' '{"type":"error","status":"404"}' ;;
esac

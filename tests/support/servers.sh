#!/usr/bin/env bash
# Private PostgreSQL and RabbitMQ servers for tests and examples, each in a folder of its own.
#
#   servers.sh start-postgres DIR   prints postgres://…; starts the same data on the same port when DIR has some
#   servers.sh start-rabbit DIR     prints amqp://…; likewise
#   servers.sh stop DIR             stops what runs in DIR, in good order
#   servers.sh kill DIR             SIGKILL
#
# Only processes whose ids stand in DIR are ever stopped. Everything listens on loopback.
set -euo pipefail

fail() { echo "servers.sh: $*" >&2; exit 1; }

# A port that nobody listens on, below the range that outgoing connections are given.
free_port() {
    local port
    for _ in $(seq 1 100); do
        port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
    fail "no free port found"
}

# The port noted in DIR, or a new one, noted.
port_of() { # DIR NAME
    [[ -f $1/$2 ]] || free_port >"$1/$2"
    cat "$1/$2"
}

wait_for() { # SECONDS LOG COMMAND…
    local end=$((SECONDS + $1)) log=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            tail -n 30 "$log" >&2 || true
            fail "in vain: $*"
        fi
        sleep 0.1
    done
}

alive() { kill -0 "$1" 2>/dev/null; }

# A second server on the same data would fail, and take the note of the first one's id with it.
not_running() { # DIR
    if [[ -f $1/pid ]] && alive "$(cat "$1/pid")"; then fail "a server runs in $1 already"; fi
}

# Ends a process: asks first, and insists after a while.
end() { # PID SIGNAL SECONDS
    alive "$1" || return 0
    kill "-$2" "$1" 2>/dev/null || true
    local end=$((SECONDS + $3))
    while alive "$1" && ((SECONDS < end)); do sleep 0.05; done
    if alive "$1"; then kill -KILL "$1" 2>/dev/null || true; fi
}

postgres_bin() {
    local dir
    for dir in $(compgen -G '/usr/lib/postgresql/*/bin' | sort -Vr) /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        if [[ -x $dir/postgres ]]; then echo "$dir"; return; fi
    done
    if command -v postgres >/dev/null; then dirname "$(command -v postgres)"; return; fi
    fail "PostgreSQL is not installed"
}

# PostgreSQL refuses to run as root.
as_postgres() {
    if [[ $(id -u) == 0 ]]; then runuser -u postgres -- "$@"; else "$@"; fi
}

start_postgres() {
    local dir=$1 bin port
    bin=$(postgres_bin)
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    not_running "$dir"
    echo postgres >"$dir/kind"
    port=$(port_of "$dir" port)
    if [[ ! -d $dir/data ]]; then
        if [[ $(id -u) == 0 ]]; then chown postgres "$dir"; fi
        as_postgres "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C >"$dir/initdb.log" 2>&1 ||
            { cat "$dir/initdb.log" >&2; fail "initdb failed"; }
        as_postgres tee -a "$dir/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
max_connections = 200
shared_buffers = 128MB
fsync = on
CONF
    fi
    # After a SIGKILL the last server's children take a moment to go, and it does not start before: hence the rounds.
    local round
    for round in $(seq 1 20); do
        # A session of its own, so that a signal to the caller's group does not reach it.
        as_postgres setsid "$bin/postgres" -D "$dir/data" >>"$dir/log" 2>&1 </dev/null &
        local child=$!
        until "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" -U postgres || ! alive "$child"; do sleep 0.05; done
        if alive "$child"; then break; fi
        sleep 0.3
    done
    if ! alive "$child"; then tail -n 30 "$dir/log" >&2; fail "PostgreSQL does not start"; fi
    head -n 1 "$dir/data/postmaster.pid" >"$dir/pid"
    echo "postgres://postgres@127.0.0.1:$port/postgres"
}

rabbit_server() {
    local found
    for found in /usr/lib/rabbitmq/bin/rabbitmq-server /opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server /usr/local/opt/rabbitmq/sbin/rabbitmq-server; do
        if [[ -x $found ]]; then echo "$found"; return; fi
    done
    command -v rabbitmq-server || fail "RabbitMQ is not installed"
}

handshake() { # PORT: whether an AMQP server speaks there
    local answer
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'AMQP\0\0\11\1' >&3
    answer=$(timeout 2 head -c 1 <&3 | od -An -tx1)
    exec 3>&-
    [[ $answer == *01* ]]
}

start_rabbit() {
    local dir=$1 server port epmd
    server=$(rabbit_server)
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    not_running "$dir"
    echo rabbit >"$dir/kind"
    port=$(port_of "$dir" port)
    epmd=$(port_of "$dir" epmd-port)
    printf '[].' >"$dir/plugins"
    cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$port
disk_free_limit.absolute = 50MB
CONF
    # A node name and an epmd of its own: it knows of no other node on this machine, and none of it.
    export HOME=$dir ERL_CRASH_DUMP=$dir/erl_crash.dump ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$epmd
    export RABBITMQ_NODENAME=amends-$port@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$port
    RABBITMQ_DIST_PORT=$(port_of "$dir" dist-port)
    export RABBITMQ_DIST_PORT RABBITMQ_MNESIA_BASE=$dir/mnesia RABBITMQ_LOG_BASE=$dir/log RABBITMQ_PID_FILE=$dir/pid
    export RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins RABBITMQ_CONFIG_FILE=$dir/rabbitmq
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
    setsid epmd >>"$dir/out" 2>&1 </dev/null &
    echo $! >"$dir/epmd-pid"
    setsid "$server" >>"$dir/out" 2>&1 </dev/null &
    wait_for 90 "$dir/out" handshake "$port"
    echo "amqp://guest:guest@127.0.0.1:$port/%2f"
}

stop() { # DIR, or a folder of such folders
    local dir=$1 each
    if [[ ! -f $dir/kind ]]; then
        for each in "$dir"/*/; do if [[ -f ${each}kind ]]; then stop "${each%/}"; fi; done
        return
    fi
    case $(cat "$dir/kind") in
        postgres) if [[ -f $dir/pid ]]; then end "$(cat "$dir/pid")" INT 20; fi ;;
        rabbit)
            if [[ -f $dir/pid ]]; then end "$(cat "$dir/pid")" TERM 20; fi
            if [[ -f $dir/epmd-pid ]]; then end "$(cat "$dir/epmd-pid")" TERM 2; fi
            ;;
    esac
    rm -f "$dir/pid" "$dir/epmd-pid"
}

kill_now() {
    local dir=$1 pid
    pid=$(cat "$dir/pid")
    # PostgreSQL's other processes see that their parent is gone and end by themselves.
    kill -KILL "$pid"
    if [[ -f $dir/epmd-pid ]]; then kill -KILL "$(cat "$dir/epmd-pid")" 2>/dev/null || true; fi
    while alive "$pid"; do sleep 0.02; done
    if [[ $(cat "$dir/kind") == postgres ]]; then rm -f "$dir/data/postmaster.pid"; fi
    rm -f "$dir/pid" "$dir/epmd-pid"
}

case ${1:-} in
    start-postgres) start_postgres "$2" ;;
    start-rabbit) start_rabbit "$2" ;;
    stop) stop "$2" ;;
    kill) kill_now "$2" ;;
    *) fail "start-postgres DIR | start-rabbit DIR | stop DIR | kill DIR" ;;
esac

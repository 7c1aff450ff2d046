#!/usr/bin/env bash
# Private PostgreSQL and RabbitMQ servers for tests and examples, each in a folder of its own.
#
#   servers.sh start-postgres DIR          prints postgres://…; starts the same data on the same port when DIR has some
#   servers.sh start-rabbit DIR [CERTS]    prints amqp://…; likewise. With CERTS, a folder with ca.pem, server.pem and
#                                          server.key, it also listens with TLS and prints amqps://… on a second line
#   servers.sh ctl DIR ARGUMENT…           rabbitmqctl on the RabbitMQ in DIR
#   servers.sh stop DIR                    stops what runs in DIR, or in its folders, in good order
#   servers.sh kill DIR                    SIGKILL
#   servers.sh remove DIR                  stop, and what was mounted in DIR is unmounted
#
# What may be put into DIR before a PostgreSQL is made there: `room`, how many megabytes the write-ahead log (in `wal`)
# and the folder `space/tables` have, each on a disk of its own that can be filled (needs the right to mount; without it,
# said and left out); `preload`, a library for the server to load, which finds the file `clock` of DIR by CHAOS_CLOCK.
#
# Only processes whose ids stand in DIR are ever stopped; a start that fails, or is interrupted, stops what it started.
# Everything listens on loopback. Linux and macOS (bash 3.2, no setsid, no timeout).
set -euo pipefail

fail() { echo "servers.sh: $*" >&2; exit 1; }

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # PORT

# A port that nobody listens on, below the range that outgoing connections are given.
free_port() {
    local port
    for _ in $(seq 1 100); do
        port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
        listening "$port" || { echo "$port"; return; }
    done
    fail "no free port found"
}

# The port noted in DIR, or a new one, noted.
port_of() { # DIR NAME
    [[ -s $1/$2 ]] || free_port >"$1/$2"
    cat "$1/$2"
}

# Whether a process is there and more than an entry that nobody has collected yet.
alive() { kill -0 "$1" 2>/dev/null && ! grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"; } # PID

# A second server on the same data would fail, and take the note of the first one's id with it.
not_running() { # DIR
    local note
    for note in pid launcher-pid; do
        if [[ -s $1/$note ]] && alive "$(cat "$1/$note")"; then fail "a server runs in $1 already"; fi
    done
}

# Ends a process: asks first, and insists after a while.
end() { # PID SIGNAL SECONDS
    alive "$1" || return 0
    kill "-$2" "$1" 2>/dev/null || true
    local end=$((SECONDS + $3))
    while alive "$1" && ((SECONDS < end)); do sleep 0.05; done
    if alive "$1"; then kill -KILL "$1" 2>/dev/null || true; fi
}

# Ends the process whose id is noted, if one is.
end_noted() { # FILE SIGNAL SECONDS
    if [[ -s $1 ]]; then end "$(cat "$1")" "$2" "$3"; fi
}

# Becomes a command in a session of its own, so that a signal to the caller's group does not reach it. The id stays.
detached() {
    if command -v setsid >/dev/null; then exec setsid "$@"; fi
    exec perl -MPOSIX=setsid -e 'setsid(); exec { $ARGV[0] } @ARGV or exit 127' -- "$@"
}

# From here until `started`, the end of this script is the end of what it has started in DIR.
starting() { # DIR
    unfinished=$1
    trap 'give_up' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

give_up() {
    trap '' HUP INT TERM
    # Nothing in it is worth a wait, and a RabbitMQ that is still starting does not listen.
    patience=2
    stop "$unfinished" || true
}

started() { trap - EXIT HUP INT TERM; }

# Why a server that has ended did not start. Gives way to another try when DIR is new and a port was taken meanwhile.
died() { # DIR NAME LOG NEW PORT-NAME…
    local dir=$1 name=$2 log=$3 is_new=$4 port
    shift 4
    stop "$dir"
    for port in "$@"; do
        if [[ -s $dir/$port ]] && listening "$(cat "$dir/$port")"; then
            port=$(cat "$dir/$port")
            [[ $is_new == yes ]] || fail "$name does not start: another program has taken port $port, which $dir uses"
            echo "servers.sh: another program has taken port $port: trying others" >&2
            (cd "$dir" && rm -f "$@")
            return 0
        fi
    done
    tail -n 30 "$log" >&2 || true
    fail "$name does not start"
}

# Before the start of what is there already: a port that another program has is told. A server that was killed is gone
# before the last of its threads is, and its port is free only then.
still_free() { # DIR NAME PORT-NAME…
    local dir=$1 name=$2 port
    local end=$((SECONDS + 10))
    shift 2
    for port in "$@"; do
        while [[ -s $dir/$port ]] && listening "$(cat "$dir/$port")" && ((SECONDS < end)); do sleep 0.05; done
        if [[ -s $dir/$port ]] && listening "$(cat "$dir/$port")"; then
            fail "$name does not start: another program has taken port $(cat "$dir/$port"), which $dir uses"
        fi
    done
}

postgres_bin() {
    local dir
    for dir in $(compgen -G '/usr/lib/postgresql/*/bin' | sort -Vr) /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        if [[ -x $dir/postgres ]]; then echo "$dir"; return; fi
    done
    if command -v postgres >/dev/null; then dirname "$(command -v postgres)"; return; fi
    fail "PostgreSQL is not installed"
}

# PostgreSQL refuses to run as root. Replaces the process, so that its id is the server's.
as_postgres=()
if [[ $(id -u) == 0 ]]; then as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups); fi

# Disks with little room: on tmpfs, so that they vanish with the machine at the latest.
small_disks() { # DIR
    local dir=$1 wal space name
    read -r wal space <"$dir/room"
    for name in wal space; do
        mkdir -p "$dir/$name"
        mountpoint -q "$dir/$name" 2>/dev/null && continue
        if ! mount -t tmpfs -o "size=${!name}m,mode=755" amends-test "$dir/$name" 2>/dev/null; then
            echo "servers.sh: no right to mount: no small disks for PostgreSQL" >&2
            unmount "$dir"
            return 1
        fi
    done
    mkdir -p "$dir/space/tables"
    if [[ $(id -u) == 0 ]]; then chown postgres "$dir/wal" "$dir/space/tables"; fi
}

unmount() { # DIR
    local name
    for name in wal space; do
        if mountpoint -q "$1/$name" 2>/dev/null; then umount "$1/$name" 2>/dev/null || umount -l "$1/$name"; fi
        rmdir "$1/$name" 2>/dev/null || true
    done
}

make_postgres_data() { # DIR BIN
    local dir=$1 bin=$2
    if [[ $(id -u) == 0 ]]; then chown postgres "$dir"; fi
    local wal=()
    if [[ -s $dir/room ]] && small_disks "$dir"; then wal=(-X "$dir/wal/log"); fi
    # Under another name until it is whole.
    rm -rf "$dir/data.new" "$dir/wal/log"
    ${as_postgres[@]+"${as_postgres[@]}"} "$bin/initdb" ${wal[@]+"${wal[@]}"} -D "$dir/data.new" -U postgres -A trust -E UTF8 --locale=C \
        >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; fail "initdb failed"; }
    cat >>"$dir/data.new/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 128MB
fsync = on
CONF
    if ((${#wal[@]})); then echo "max_wal_size = 64MB" >>"$dir/data.new/postgresql.conf"; fi
    mv "$dir/data.new" "$dir/data"
}

# Whether the server in DIR, and no other, takes connections: the file says so itself.
postgres_is_ready() { # DIR PID
    local file=$1/data/postmaster.pid
    [[ $(sed -n 1p "$file" 2>/dev/null) == "$2" && $(sed -n 8p "$file" 2>/dev/null) == ready* ]]
}

start_postgres() {
    local dir=$1 bin port child is_new=no end from
    bin=$(postgres_bin)
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    not_running "$dir"
    starting "$dir"
    echo postgres >"$dir/kind"
    still_free "$dir" PostgreSQL port
    if [[ ! -d $dir/data ]]; then
        is_new=yes
        make_postgres_data "$dir" "$bin"
    fi
    if [[ -s $dir/preload ]]; then preload=(env "LD_PRELOAD=$(cat "$dir/preload")" "CHAOS_CLOCK=$dir/clock"); fi
    end=$((SECONDS + 30))
    while ((SECONDS < end)); do
        port=$(port_of "$dir" port)
        touch "$dir/log"
        from=$(($(wc -l <"$dir/log") + 1))
        detached ${as_postgres[@]+"${as_postgres[@]}"} ${preload[@]+"${preload[@]}"} "$bin/postgres" -D "$dir/data" -p "$port" >>"$dir/log" 2>&1 </dev/null &
        child=$!
        echo "$child" >"$dir/pid"
        until postgres_is_ready "$dir" "$child" || ! alive "$child" || ((SECONDS >= end)); do sleep 0.05; done
        if postgres_is_ready "$dir" "$child"; then
            started
            echo "postgres://postgres@127.0.0.1:$port/postgres"
            return
        fi
        # After a SIGKILL the last server and its children take a moment to go, and it does not start before.
        if tail -n "+$from" "$dir/log" | grep -qE 'shared memory block|"postmaster.pid" already exists'; then
            sleep 0.2
        else
            died "$dir" PostgreSQL "$dir/log" "$is_new" port
        fi
    done
    tail -n 30 "$dir/log" >&2
    fail "PostgreSQL does not start"
}

# The folder of RabbitMQ's programs: not the wrappers in the path, some of which change the user.
rabbit_bin() {
    local dir
    for dir in /usr/lib/rabbitmq/bin /opt/homebrew/opt/rabbitmq/sbin /usr/local/opt/rabbitmq/sbin; do
        if [[ -x $dir/rabbitmq-server ]]; then echo "$dir"; return; fi
    done
    if command -v rabbitmq-server >/dev/null; then dirname "$(command -v rabbitmq-server)"; return; fi
    fail "RabbitMQ is not installed"
}

# A node name and an epmd of its own: it knows of no other node on this machine, and none of it.
rabbit_environment() { # DIR
    local dir=$1
    [[ -s $dir/node ]] || echo "amends-$RANDOM$RANDOM$RANDOM" >"$dir/node"
    ERL_EPMD_PORT=$(port_of "$dir" epmd-port)
    RABBITMQ_NODENAME=$(cat "$dir/node")@localhost
    RABBITMQ_NODE_PORT=$(port_of "$dir" port)
    RABBITMQ_DIST_PORT=$(port_of "$dir" dist-port)
    export ERL_EPMD_PORT RABBITMQ_NODENAME RABBITMQ_NODE_PORT RABBITMQ_DIST_PORT
    export HOME=$dir ERL_CRASH_DUMP=$dir/erl_crash.dump ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_NODE_IP_ADDRESS=127.0.0.1
    export RABBITMQ_MNESIA_BASE=$dir/mnesia RABBITMQ_LOG_BASE=$dir/log RABBITMQ_PID_FILE=$dir/pid
    export RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins RABBITMQ_CONFIG_FILE=$dir/rabbitmq
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
}

rabbit_configuration() { # DIR CERTS
    local dir=$1 certs=$2
    printf '[].' >"$dir/plugins"
    cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$RABBITMQ_NODE_PORT
disk_free_limit.absolute = 50MB
CONF
    [[ -n $certs ]] || return 0
    cat >>"$dir/rabbitmq.conf" <<CONF
listeners.ssl.1 = 127.0.0.1:$(port_of "$dir" tls-port)
ssl_options.cacertfile = $certs/ca.pem
ssl_options.certfile = $certs/server.pem
ssl_options.keyfile = $certs/server.key
CONF
}

# Whether the AMQP server on PORT is NODE: it says its name in its first words.
speaks() { # PORT NODE
    local part found=1 LC_ALL=C
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'AMQP\0\0\11\1' >&3
    while IFS= read -r -t 2 -d '' part <&3; do
        if [[ $part == *"$2@"* ]]; then found=0; break; fi
    done
    exec 3>&-
    return "$found"
}

start_rabbit() {
    local dir=$1 certs=${2:-} bin epmd launcher is_new=no end=$((SECONDS + 90)) try
    local ports=(port epmd-port dist-port tls-port)
    bin=$(rabbit_bin)
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    not_running "$dir"
    starting "$dir"
    echo rabbit >"$dir/kind"
    still_free "$dir" RabbitMQ "${ports[@]}"
    [[ -d $dir/mnesia ]] || is_new=yes
    for try in 1 2 3; do
        rabbit_environment "$dir"
        rabbit_configuration "$dir" "$certs"
        detached epmd >>"$dir/out" 2>&1 </dev/null &
        epmd=$!
        echo "$epmd" >"$dir/epmd-pid"
        detached "$bin/rabbitmq-server" >>"$dir/out" 2>&1 </dev/null &
        launcher=$!
        echo "$launcher" >"$dir/launcher-pid"
        while alive "$launcher" && alive "$epmd" && ((SECONDS < end)); do
            if speaks "$RABBITMQ_NODE_PORT" "$(cat "$dir/node")"; then
                started
                echo "amqp://guest:guest@127.0.0.1:$RABBITMQ_NODE_PORT/%2f"
                if [[ -n $certs ]]; then echo "amqps://guest:guest@localhost:$(cat "$dir/tls-port")/%2f"; fi
                return
            fi
            sleep 0.1
        done
        ((try < 3)) || is_new=no
        died "$dir" RabbitMQ "$dir/out" "$is_new" "${ports[@]}"
    done
}

ctl() { # DIR ARGUMENT…
    local dir bin
    dir=$(cd "$1" && pwd)
    shift
    bin=$(rabbit_bin)
    rabbit_environment "$dir"
    # A broker may be one that hangs.
    "$bin/rabbitmqctl" --quiet --timeout 60 --node "$RABBITMQ_NODENAME" "$@"
}

# How many seconds a server has to end in good order.
patience=20

stop() { # DIR, or a folder in which there are such folders
    local dir=$1 each
    if [[ ! -f $dir/kind ]]; then
        find "$dir" -maxdepth 4 -type f -name kind | while IFS= read -r each; do stop "${each%/kind}"; done
        return
    fi
    case $(cat "$dir/kind") in
        postgres) end_noted "$dir/pid" INT "$patience" ;;
        rabbit)
            end_noted "$dir/pid" TERM "$patience"
            end_launcher "$dir" TERM "$patience"
            end_noted "$dir/epmd-pid" TERM 2
            ;;
    esac
    rm -f "$dir/pid" "$dir/epmd-pid" "$dir/launcher-pid"
}

remove() { # DIR, or a folder in which there are such folders
    local each
    stop "$1"
    find "$1" -maxdepth 4 -type f -name kind | while IFS= read -r each; do unmount "${each%/kind}"; done
}

# The script that started RabbitMQ, and what is left of its process group: it leads one, see `detached`.
end_launcher() { # DIR SIGNAL SECONDS
    [[ -s $1/launcher-pid ]] || return 0
    local launcher end=$((SECONDS + $3))
    launcher=$(cat "$1/launcher-pid")
    kill "-$2" -- "-$launcher" 2>/dev/null || true
    while alive "$launcher" && ((SECONDS < end)); do sleep 0.05; done
    kill -KILL -- "-$launcher" 2>/dev/null || true
}

kill_now() {
    local dir=$1 note
    [[ -s $dir/pid ]] || fail "no server runs in $dir"
    # PostgreSQL's other processes see that their parent is gone and end by themselves.
    for note in pid launcher-pid epmd-pid; do end_noted "$dir/$note" KILL 5; done
    end_launcher "$dir" KILL 5
    rm -f "$dir/pid" "$dir/epmd-pid" "$dir/launcher-pid"
}

case ${1:-} in
    start-postgres) start_postgres "$2" ;;
    start-rabbit) start_rabbit "$2" "${3:-}" ;;
    ctl) ctl "${@:2}" ;;
    stop) stop "$2" ;;
    kill) kill_now "$2" ;;
    remove) remove "$2" ;;
    *) fail "start-postgres DIR | start-rabbit DIR [CERTS] | ctl DIR ARGUMENT… | stop DIR | kill DIR | remove DIR" ;;
esac

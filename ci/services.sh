#!/usr/bin/env bash
# Servers for the examples: started, stopped, shown. They listen on 127.0.0.1 and save nothing.
#   ci/services.sh start|stop|status [redis|cluster|sentinel|memcached|all]
# redis: one server. cluster: three nodes, each with a third of the keys, none of which is kept
# twice. sentinel: a master, its replica, and three sentinels that replace a dead master within
# seconds. Files are in build/services (SERVICES=), ports begin with BASE_PORT= (17000).
# As root on Debian it installs what is missing.
set -euo pipefail
source "$(dirname "$0")/common.sh"

folder=${SERVICES:-build/services}
base=${BASE_PORT:-17000}
redis=$base
cluster=($((base + 1)) $((base + 2)) $((base + 3)))
master=$((base + 4)) replica=$((base + 5))
sentinels=($((base + 6)) $((base + 7)) $((base + 8)))
memcached=$((base + 9))

# The ports of a service.
ports() {
    case $1 in
    redis) echo "$redis" ;;
    cluster) echo "${cluster[@]}" ;;
    sentinel) echo "$master $replica ${sentinels[*]}" ;;
    memcached) echo "$memcached" ;;
    esac
}

# listed PORTS... : host:port,host:port
listed() {
    local each list=
    for each; do list+=,127.0.0.1:$each; done
    echo "${list#,}"
}

url() {
    case $1 in
    redis) echo "redis://$(listed "$redis")" ;;
    cluster) echo "redis+cluster://$(listed "${cluster[@]}")" ;;
    sentinel) echo "redis+sentinel://$(listed "${sentinels[@]}")/cache" ;;
    memcached) listed "$memcached" ;;
    esac
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# ours PORT : whether the server that we started there is alive; its process is $pid.
ours() {
    pid=$(cat "$folder/$1/pid" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qE "(redis|memcached).*$1"
}

# eventually COMMAND... : until it succeeds, at most 20 s.
eventually() {
    local tries
    for tries in {1..200}; do
        "$@" && return
        sleep 0.1
    done
    echo "gave up after $tries tries: $*" >&2
    return 1
}

# run PORT COMMAND... : starts a server in a folder of its own, unless it runs.
run() {
    local port=$1
    ours "$port" && return
    if listens "$port"; then
        echo "port $port is taken; try another BASE_PORT=" >&2
        return 1
    fi
    mkdir -p "$folder/$port"
    (cd "$folder/$port" && exec setsid "${@:2}" >log 2>&1 </dev/null & echo $! >"$folder/$port/pid")
    eventually listens "$port"
}

run_redis() {
    run "$1" redis-server --port "$1" --bind 127.0.0.1 --save '' --appendonly no "${@:2}"
}

run_sentinel() {
    local config=$folder/$1/sentinel.conf
    ours "$1" && return
    mkdir -p "$folder/$1"
    cat >"$config" <<END
sentinel monitor cache 127.0.0.1 $master 2
sentinel down-after-milliseconds cache 500
sentinel failover-timeout cache 2000
END
    run "$1" redis-sentinel "$config" --port "$1" --bind 127.0.0.1
}

says() { redis-cli -p "$1" "${@:3}" | tr -d '\r' | grep -q "$2"; }

start() {
    local port options
    case $1 in
    redis) run_redis "$redis" ;;
    cluster)
        options=(--cluster-enabled yes --cluster-node-timeout 1000)
        options+=(--cluster-require-full-coverage no)
        for port in "${cluster[@]}"; do run_redis "$port" "${options[@]}"; done
        says "$cluster" cluster_slots_assigned:16384 cluster info || redis-cli --cluster create \
            "${cluster[@]/#/127.0.0.1:}" --cluster-yes >"$folder/create.log"
        for port in "${cluster[@]}"; do
            eventually says "$port" cluster_state:ok cluster info
        done
        ;;
    sentinel)
        run_redis "$master"
        run_redis "$replica" --replicaof 127.0.0.1 "$master"
        eventually says "$replica" master_link_status:up info replication
        for port in "${sentinels[@]}"; do run_sentinel "$port"; done
        ;;
    memcached)
        options=()
        [ "$(id -u)" = 0 ] && options=(-u root)
        run "$memcached" memcached -p "$memcached" -l 127.0.0.1 -U 0 "${options[@]}"
        ;;
    esac
}

gone() { ! ours "$1"; }

stop() {
    local port
    for port in $(ports "$1"); do
        if ours "$port"; then
            kill -KILL "$pid" # there is nothing to save
            eventually gone "$port"
        fi
        rm -rf "${folder:?}/$port"
    done
}

status() {
    local port alive=0 all=0
    for port in $(ports "$1"); do
        all=$((all + 1))
        if ours "$port"; then alive=$((alive + 1)); fi
    done
    printf '%-10s %d of %d run   %s\n' "$1" "$alive" "$all" "$(url "$1")"
}

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

services=${2:-all}
case $services in
all) services="redis cluster sentinel memcached" ;;
redis | cluster | sentinel | memcached) ;;
*) usage ;;
esac
case ${1:-} in
start) need_servers ;;
stop | status) ;;
*) usage ;;
esac
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
for service in $services; do
    if [ "$1" != status ]; then "$1" "$service"; fi
    if [ "$1" != stop ]; then status "$service"; fi
done

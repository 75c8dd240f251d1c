#!/bin/sh
# Installs sysmon on a host with systemd, from a clone or a release. POSIX sh; `install.sh --help` says how.
set -eu
umask 022
# The order of sort and the words of other programs do not depend on who calls.
export LC_ALL=C

usage() {
  cat <<'END'
Usage: install.sh server                    install or upgrade the server
       install.sh agent [--join-file FILE]  install or upgrade the agent
       install.sh uninstall [--purge]       remove both; --purge: also configuration, keys, state and users

A host joins with the line that `sysmon-server enroll NAME` prints on the server. install.sh reads it from FILE (- is
standard input). Without --join-file, a host that has not joined yet gets it from the server if that runs on this host,
else from a prompt or from standard input:

  sudo sysmon-server enroll web-1 | ssh web-1 sudo ./install.sh agent

Options:
  --prefix DIR   where the programs go, /usr/local by default
  --root DIR     for packagers: put the files below DIR; no user, key or unit of this host is touched, no root needed

A second run changes nothing. An upgrade keeps configuration, keys and state, restarts what has changed, and restores the
old version if the new one does not start.
Exit codes: 0 success, 1 failure, 2 wrong usage or no server to join.
END
}

main() {
  command='' join_file='' purge='' root='' prefix=/usr/local
  parse "$@"
  base=$root$prefix lib=$root$prefix/lib/sysmon etc=$root/etc/sysmon
  here=$(cd "$(dirname "$0")" && pwd -P)
  case $command in
    uninstall) uninstall ;;
    *)
      role=$command
      install_role
      ;;
  esac
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      server | agent | uninstall)
        [ -z "$command" ] || wrong "'$command' and '$1' are given: expected one of them"
        command=$1
        ;;
      --purge) purge=yes ;;
      --join-file | --prefix | --root)
        [ $# -gt 1 ] || wrong "option '$1' has no value: see --help"
        set_option "$1" "$2"
        shift
        ;;
      --join-file=* | --prefix=* | --root=*) set_option "${1%%=*}" "${1#*=}" ;;
      # Not repeated: somebody may have put the join line here.
      sysmon-join-*) wrong 'a join line on the command line is seen by ps and kept by the shell: expected --join-file FILE, or standard input' ;;
      *) wrong "'$1' is not an argument of install.sh: see --help" ;;
    esac
    shift
  done
  [ -n "$command" ] || wrong 'nothing to do: expected server, agent or uninstall, see --help'
  [ -z "$purge" ] || [ "$command" = uninstall ] || wrong "option '--purge' does not belong to '$command': expected with uninstall"
  [ -z "$join_file" ] || [ "$command" = agent ] || wrong "option '--join-file' does not belong to '$command': expected with agent"
}

set_option() {
  [ -n "$2" ] || wrong "option '$1' is empty: see --help"
  case $1 in
    --join-file) join_file=$2 ;;
    --prefix) prefix=$(absolute "$1" "$2") ;;
    --root) root=$(absolute "$1" "$2") ;;
  esac
}

absolute() {
  # The units are edited with the prefix: nothing that sed or systemd would read differently.
  case $2 in
    *[!A-Za-z0-9/._-]*) wrong "option '$1' is '$2': expected a path of A-Z a-z 0-9 / . _ -" ;;
    /) wrong "option '$1' is '/': expected a folder below it" ;;
    /*) echo "${2%/}" ;;
    *) wrong "option '$1' is '$2': expected an absolute path" ;;
  esac
}

say() { echo "sysmon: $*"; }
warn() { echo "sysmon: $*" >&2; }
die() {
  warn "$*"
  exit 1
}
wrong() {
  warn "$*"
  exit 2
}

# Installing -----------------------------------------------------------------------------------------------------------

# Everything that can be refused is refused before anything is touched; the switch to the new version is one rename, and
# whatever fails after it is taken back by `clean_up`.
install_role() {
  changed='' changed_files='' restarted='' committed='' created_release='' kept=0 join_key=''
  if [ -z "$root" ]; then
    check_host
    # Not in /run/lock, which is everybody's: a link there would lead root elsewhere, and any user could hold the lock.
    exec 9>/run/sysmon-install.lock
    flock -n 9 || die "another install.sh is running: wait for it"
  fi
  work=$(mktemp -d)
  mkdir "$work/kept"
  : >"$work/kept.list"
  trap 'clean_up' EXIT
  trap 'exit 1' HUP INT TERM
  find_files
  find_node
  [ "$role" != agent ] || [ -n "$root" ] || take_join_line
  stage
  roles=$role
  for other in agent server; do
    [ "$other" = "$role" ] || [ ! -e "$base/lib/systemd/system/sysmon-$other.service" ] || roles="$roles $other"
  done
  for each in $roles; do configure "$each"; done
  [ -z "$join_key" ] || join
  if [ -z "$root" ]; then for each in $roles; do check_options "$each"; done; fi
  decide_restarts
  switch
  if [ -z "$root" ]; then run_units; fi
  committed=yes
  remove_old_releases
  summary
}

check_host() {
  [ "$(id -u)" = 0 ] || die "not root: run 'sudo $0 $command'"
  [ -d /run/systemd/system ] || die 'this host was not booted with systemd, which runs the programs'
  for tool in systemctl systemd-sysusers systemd-notify journalctl setpriv runuser flock; do
    command -v "$tool" >/dev/null || die "'$tool' is missing: install Debian's packages systemd and util-linux, or their like"
  done
}

# Where the bundles and units are: in a release beside this script; in a clone after a build.
find_files() {
  if [ -e "$here/src/agent/main.ts" ]; then
    build
    version=$(sed -n 's/^ *"version": "\([^"]*\)".*/\1/p' "$here/package.json")
    bundles=$here/dist
  elif [ -e "$here/dist/sysmon-agent.cjs" ]; then
    version=$(cat "$here/VERSION")
    bundles=$here/dist
  elif [ "${here##*/lib/sysmon/}" != "$here" ]; then
    die "this is the installed copy: use it to uninstall; to upgrade run the install.sh of another release"
  else
    die "'$here' is neither a clone nor a release: there is no dist/sysmon-agent.cjs"
  fi
}

# As whom the clone belongs to, so that it holds no files of root afterwards.
build() {
  command -v node >/dev/null || die "'node' is missing, which a clone is built with: install Node.js 20.15 or newer with npm, or use a release"
  user=$(stat -c %U "$here")
  [ "$(id -u)" != 0 ] || [ -z "${SUDO_USER:-}" ] || [ "$SUDO_USER" = root ] || user=$SUDO_USER
  set -- node "$here/scripts/build.mjs" --bundle
  if [ "$(id -u)" = 0 ] && [ "$user" != root ]; then
    set -- runuser -u "$user" -- env HOME="$(getent passwd "$user" | cut -d: -f6)" "$@"
  fi
  (cd "$here" && "$@") </dev/null >"$work/build.log" 2>&1 || {
    cat "$work/build.log" >&2
    die "the build failed, see above; 'npm run build' as $user repeats it"
  }
}

# The system's Node.js where it is new enough, else the one of the release.
find_node() {
  node='' runtime=''
  if [ -n "$root" ]; then
    if [ -x "$here/runtime/node" ]; then runtime=$here/runtime/node; else node=/usr/bin/node; fi
    return
  fi
  for candidate in "$(command -v node || true)" /usr/bin/node /usr/local/bin/node; do
    [ -x "$candidate" ] || continue
    # The units cannot see into homes.
    case $(readlink -f "$candidate") in /root/* | /home/* | /tmp/*) continue ;; esac
    if is_new_enough "$candidate"; then node=$candidate && return; fi
  done
  if [ -x "$here/runtime/node" ]; then
    runtime=$here/runtime/node
    is_new_enough "$runtime" || die "the Node.js of this release does not run here ($(uname -m)): take the release for this architecture, or install Node.js 20.15 or newer"
    return
  fi
  found=$(node --version 2>/dev/null || echo none)
  die "Node.js 20.15 or newer is needed in /usr/bin or /usr/local/bin (found: $found): install it, or use a release, which brings one"
}

is_new_enough() {
  found=$("$1" --version 2>/dev/null) || return 1
  found=${found#v}
  major=${found%%.*} minor=${found#*.} minor=${minor%%.*}
  [ "$major" -gt 20 ] || { [ "$major" -eq 20 ] && [ "$minor" -ge 15 ]; }
}

# The join line: from the file that was named, else, if no server is known yet, from this host's server, a prompt or stdin.
take_join_line() {
  line=''
  if [ -n "$join_file" ]; then
    if [ "$join_file" = - ]; then read_line; else
      [ -r "$join_file" ] || die "join file '$join_file' cannot be read"
      read_line <"$join_file"
    fi
  elif is_configured; then
    return 0
  elif [ -e "$etc/fleet.key" ] && [ -e "$lib/current/sysmon-server.cjs" ]; then
    line=$("$lib/current/node" "$lib/current/sysmon-server.cjs" enroll "$(uname -n)")
  elif [ -t 0 ]; then
    ask_line
  else
    read_line
  fi
  [ -n "$line" ] || wrong "no server is known: run 'sudo sysmon-server enroll $(uname -n)' on the server, and give its line to this command by standard input or --join-file FILE"
  # shellcheck disable=SC2086 # into its words
  set -f && set -- $line && set +f
  [ $# -eq 4 ] || wrong "the join line has $# words: expected the 4 that 'sysmon-server enroll' prints"
  [ "$1" = sysmon-join-v1 ] || wrong "the join line begins with another word than sysmon-join-v1: expected a line of 'sysmon-server enroll'"
  join_server=$2 join_identity=$3 join_key=$4
  case $join_server in
    *[!A-Za-z0-9.:_%[]-]* | :* | *[!0-9]) bad_server ;;
    *:*) ;;
    *) bad_server ;;
  esac
  case $join_identity in
    *[!A-Za-z0-9._:-]* | :* | *: | *:*:*:*) bad_identity ;;
    *:*:*) ;;
    *) bad_identity ;;
  esac
  case $join_key in *[!0-9a-f]*) bad_key ;; esac
  [ ${#join_key} -eq 64 ] || bad_key
  # The server's own host reaches it without asking anybody for its name.
  [ "${join_server%:*}" != "$(uname -n)" ] || [ ! -e "$etc/fleet.key" ] || join_server=127.0.0.1:${join_server##*:}
}

bad_server() { wrong "the server in the join line is '$join_server': expected HOST:PORT"; }
bad_identity() { wrong "the identity in the join line is '$join_identity': expected NAME:GENERATION:KEYID"; }
bad_key() { wrong 'the key in the join line is not whole: expected 64 hexadecimal digits'; }

is_configured() {
  [ -e "$etc/agent.key" ] || grep -q '^[[:space:]]*SYSMON_SERVER[[:space:]]*=' "$etc/agent.env" 2>/dev/null
}

# A last line without an end counts too.
read_line() { read -r line || :; }

ask_line() {
  printf "The line that 'sudo sysmon-server enroll %s' prints on the server (not shown as you type): " "$(uname -n)" >&2
  settings=$(stty -g)
  # It holds the key.
  stty -echo
  read_line
  stty "$settings"
  echo >&2
}

# A new release beside the present one; nothing of what runs is touched.
stage() {
  new=$lib/releases/.new
  rm -rf "$new"
  mkdir -p "$new/doc" "$new/systemd"
  cp "$bundles/sysmon-agent.cjs" "$bundles/sysmon-server.cjs" "$here/install.sh" "$new/"
  for file in agent.env server.env sysmon-agent.conf sysmon-server.conf; do cp "$here/systemd/$file" "$new/systemd/"; done
  for each in agent server; do
    sed "s|/usr/local/|$prefix/|g" "$here/systemd/sysmon-$each.service" >"$new/systemd/sysmon-$each.service"
    launcher "$each" >"$new/systemd/sysmon-$each"
  done
  for file in "$here/README.md" "$here/CHANGELOG.md" "$here/SECURITY.md" "$here/LICENSE" "$here/docs/operating.md" "$here/docs/scrapers.md" "$bundles/THIRD-PARTY.txt" "$here/prometheus"; do
    [ ! -e "$file" ] || cp -R "$file" "$new/doc/"
  done
  if [ -n "$node" ]; then ln -s "$node" "$new/node"; else
    cp "$runtime" "$new/node"
    cp "$here/runtime/LICENSE" "$new/doc/LICENSE.node"
  fi
  chmod -R u+rwX,go+rX,go-w "$new"
  id=$version-$(contents "$new" | sha256sum | cut -c 1-10)
  if [ -d "$lib/releases/$id" ]; then rm -rf "$new"; else
    mv "$new" "$lib/releases/$id"
    created_release=$lib/releases/$id
  fi
  new=$lib/releases/$id
}

contents() (
  cd "$1"
  find . -type f -exec sha256sum {} + | sort -k 2
  if [ -L node ]; then readlink node; fi
)

# The program on the PATH.
launcher() {
  cat <<END
#!/bin/sh
exec $prefix/lib/sysmon/current/node $prefix/lib/sysmon/current/sysmon-$1.cjs "\$@"
END
}

# The role's user, folders, options and key: made where they are missing, and never overwritten.
configure() {
  put "$new/systemd/sysmon-$1.conf" "$base/lib/sysusers.d/sysmon-$1.conf" 644
  mkdir -p "$etc"
  if [ -z "$root" ]; then
    getent passwd "sysmon-$1" >/dev/null || {
      systemd-sysusers "$base/lib/sysusers.d/sysmon-$1.conf" 2>"$work/sysusers.log" || die "the user sysmon-$1 cannot be made: $(cat "$work/sysusers.log")"
      changed=yes
      say "made the user sysmon-$1"
    }
    [ -d "/var/lib/sysmon-$1" ] || install -d -o "sysmon-$1" -g "sysmon-$1" -m 0750 "/var/lib/sysmon-$1"
    case $1 in
      agent) take_over "$etc/agent.key" sysmon-agent 440 ;;
      server)
        [ -e "$etc/fleet.key" ] || make_fleet_key
        take_over "$etc/fleet.key" sysmon-server 440
        take_over "$etc/revoked.json" root 644
        ;;
    esac
  fi
  if [ ! -e "$etc/$1.env" ]; then
    cp "$new/systemd/$1.env" "$work/$1.env"
    case $1 in
      agent) set_line "$work/agent.env" SYSMON_SPOOL_DIR /var/lib/sysmon-agent ;;
      server)
        set_line "$work/server.env" SYSMON_STATE_DIR /var/lib/sysmon-server
        set_line "$work/server.env" SYSMON_FLEET_KEY_FILE /etc/sysmon/fleet.key
        ;;
    esac
    put "$work/$1.env" "$etc/$1.env" 644
  elif [ -e "$lib/current/systemd/$1.env" ] && ! cmp -s "$lib/current/systemd/$1.env" "$new/systemd/$1.env"; then
    put "$new/systemd/$1.env" "$etc/$1.env.new" 644
    say "$etc/$1.env is kept; this version's options and defaults are in $1.env.new beside it"
  fi
}

make_fleet_key() {
  od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$work/fleet.key"
  echo >>"$work/fleet.key"
  put_key "$work/fleet.key" "$etc/fleet.key" sysmon-server
  # No key has been revoked yet. Without this file the server asks for the backup of it.
  printf '{"version":1,"revoked":{}}\n' >"$work/revoked.json"
  [ -e "$etc/revoked.json" ] || put "$work/revoked.json" "$etc/revoked.json" 644
  say "made the fleet key $etc/fleet.key: keep a copy of /etc/sysmon in a safe place, agents' keys are derived from it"
}

join() {
  echo "sysmon-key-v1 $join_identity $join_key" >"$work/agent.key"
  cp "$etc/agent.env" "$work/agent.env"
  set_line "$work/agent.env" SYSMON_SERVER "$join_server"
  set_line "$work/agent.env" SYSMON_NAME "${join_identity%%:*}"
  set_line "$work/agent.env" SYSMON_KEY_FILE /etc/sysmon/agent.key
  put_key "$work/agent.key" "$etc/agent.key" sysmon-agent
  put "$work/agent.env" "$etc/agent.env" 644
}

# Sets NAME=VALUE in an environment file: in the place of the line that sets it, or that documents it.
set_line() {
  if grep -q "^$2=" "$1"; then place="$2="; else place="#$2="; fi
  awk -v place="$place" -v line="$2=$3" '
    !done && index($0, place) == 1 { print line; done = 1; next }
    { print }
    END { if (!done) print line }' "$1" >"$work/set"
  cat "$work/set" >"$1"
}

# FROM TO MODE: copies where it differs, beside and renamed; what was there comes back if this run fails.
put() {
  if [ -e "$2" ] && cmp -s "$1" "$2"; then return 0; fi
  remember "$2"
  mkdir -p "$(dirname "$2")"
  cp "$1" "$2.part"
  chmod "$3" "$2.part"
  mv "$2.part" "$2"
  changed=yes
  changed_files="$changed_files $2"
}

# FROM TO GROUP: for root and the group alone, at no moment for others.
put_key() {
  if [ -e "$2" ] && cmp -s "$1" "$2"; then return 0; fi
  remember "$2"
  (umask 077 && cp "$1" "$2.part")
  chown "root:$3" "$2.part"
  chmod 0440 "$2.part"
  mv "$2.part" "$2"
  changed=yes
  changed_files="$changed_files $2"
}

# FILE GROUP MODE: what was put there from a backup may have the numbers of another host's users.
take_over() {
  if [ ! -f "$1" ] || [ -L "$1" ]; then return 0; fi
  [ "$(stat -c %U:%G:%a "$1")" != "root:$2:$3" ] || return 0
  chown "root:$2" "$1"
  chmod "$3" "$1"
  changed=yes
  changed_files="$changed_files $1"
}

# Configuration and keys that were not there before stay, also after a failure: one corrects them, and runs this again.
remember() {
  if [ -e "$1" ] || [ -L "$1" ]; then
    kept=$((kept + 1))
    cp -a "$1" "$work/kept/$kept"
    echo "$kept $1" >>"$work/kept.list"
  elif [ "${1#"$etc"/}" = "$1" ]; then
    echo "- $1" >>"$work/kept.list"
  fi
}

# As its own user, who must be able to read what the options name.
check_options() {
  setpriv --reuid "sysmon-$1" --regid "sysmon-$1" --clear-groups env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$new/node" "$new/sysmon-$1.cjs" check >"$work/check.log" 2>&1 ||
    die "the options of /etc/sysmon/$1.env are refused, nothing was changed in what runs: $(tail -n 1 "$work/check.log")"
}

# Which units the new files concern; asked before the switch, while the old ones can be compared.
decide_restarts() {
  restart=''
  for each in $roles; do
    if ! cmp -s "$lib/current/sysmon-$each.cjs" "$new/sysmon-$each.cjs" || ! cmp -s "$lib/current/node" "$new/node" ||
      ! cmp -s "$base/lib/systemd/system/sysmon-$each.service" "$new/systemd/sysmon-$each.service" || has_new_options "$each"; then
      restart="$restart $each"
    fi
  done
}

has_new_options() {
  case "$changed_files " in *" $etc/$1.env "* | *" $etc/$1.key "*) return 0 ;; esac
  return 1
}

switch() {
  first=''
  for each in $roles; do
    [ -e "$base/lib/systemd/system/sysmon-$each.service" ] || first=$each
    put "$new/systemd/sysmon-$each.service" "$base/lib/systemd/system/sysmon-$each.service" 644
    put "$new/systemd/sysmon-$each" "$base/bin/sysmon-$each" 755
  done
  link "$prefix/lib/sysmon/current/doc" "$base/share/doc/sysmon"
  link "releases/$id" "$lib/current"
}

# TARGET LINK: replaced by a rename, so that there is no moment without it.
link() {
  [ "$(readlink "$2" 2>/dev/null)" != "$1" ] || return 0
  remember "$2"
  mkdir -p "$(dirname "$2")"
  rm -f "$2.part"
  ln -s "$1" "$2.part"
  mv -T "$2.part" "$2"
  changed=yes
}

run_units() {
  [ -z "$changed" ] || systemctl daemon-reload
  for each in $roles; do
    unit=sysmon-$each.service
    if [ "$each" = "$role" ] && { [ "$first" = "$role" ] || systemctl -q is-enabled "$unit" 2>/dev/null; }; then
      systemctl -q is-active "$unit" || restart="$restart $each"
    elif ! systemctl -q is-active "$unit"; then
      # Somebody stopped it on purpose.
      say "$unit was stopped or disabled, and was not started: 'systemctl enable --now $unit' starts it"
      continue
    fi
    case " $restart " in *" $each "*) restart_unit "$unit" ;; esac
  done
  [ "$first" != "$role" ] || systemctl -q enable "sysmon-$role.service"
}

restart_unit() {
  restarted="$restarted $1"
  changed=yes
  # Journal entries of this start and no earlier one.
  cursor=$(journalctl -n 0 --show-cursor -q | sed -n 's/^-- cursor: //p')
  systemctl restart "$1" 2>/dev/null && return 0
  # What it wrote last may still be on its way.
  journalctl --sync 2>/dev/null || :
  # Filtered here: with a match, journalctl 252 passes over the first entry after a cursor.
  journalctl -q --after-cursor "$cursor" -o short | sed -n "s/^.* ${1%.service}\[[0-9]*\]: //p" >"$work/journal" || :
  reason=$(tail -n 1 "$work/journal")
  [ -n "$reason" ] || reason="see journalctl -u $1"
  die "${1%.service} does not start: ${reason#"${1%.service}: "}"
}

# Also on a signal, and on any command that failed: nothing half-done stays.
# shellcheck disable=SC2317 # by a trap
clean_up() {
  code=$?
  trap - EXIT HUP INT TERM
  [ -n "$committed" ] || take_back
  rm -rf "$work"
  exit "$code"
}

# shellcheck disable=SC2317 # by a trap
take_back() {
  set +e
  for unit in $restarted; do systemctl stop "$unit"; done
  while read -r number path; do
    rm -f "$path"
    [ "$number" = - ] || cp -a "$work/kept/$number" "$path"
  done <"$work/kept.list"
  rm -rf "$lib/releases/.new"
  [ -z "$created_release" ] || rm -rf "$created_release"
  remove_empty_folders
  if [ -n "$root" ] || [ -z "$changed" ]; then return; fi
  systemctl daemon-reload
  for unit in $restarted; do
    if [ -e "$base/lib/systemd/system/$unit" ]; then systemctl start "$unit"; else systemctl reset-failed "$unit" 2>/dev/null; fi
  done
  if [ -e "$lib/current" ]; then warn 'everything is as it was before, and the old version runs'; else
    warn "nothing is installed; configuration and keys in /etc/sysmon are kept for the next try"
  fi
}

remove_old_releases() {
  for folder in "$lib/releases"/* "$lib/releases"/.new; do
    [ "$folder" = "$new" ] || rm -rf "$folder"
  done
}

# Saying how it went ---------------------------------------------------------------------------------------------------

summary() {
  [ -n "$root" ] || [ -z "$changed" ] || say "sysmon-$role $version is installed"
  [ -n "$changed" ] || say "nothing to change: sysmon-$role $version is installed"
  [ -z "$root" ] || { say "sysmon-$role $version is below $root" && return; }
  case $role in
    server) server_summary ;;
    agent) agent_summary ;;
  esac
}

server_summary() {
  systemctl -q is-active sysmon-server.service || return 0
  say "$("$base/bin/sysmon-server" check)"
  say "'sudo sysmon-server enroll NAME' prints the line with which a host joins; Prometheus scrapes http://$(uname -n):9733/metrics"
  say 'ports to open in a firewall: 9732/tcp for agents, 9733/tcp for Prometheus alone (without SYSMON_WEB_CONFIG_FILE it has no TLS and no password)'
  say 'where agents do not know this host by that name, set SYSMON_ADVERTISE=ADDRESS:9732 in /etc/sysmon/server.env'
  if command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active'; then
    say "ufw is active on this host: 'ufw allow 9732/tcp', and 9733/tcp from the address of Prometheus"
  elif command -v firewall-cmd >/dev/null && firewall-cmd -q --state 2>/dev/null; then
    say "firewalld is active on this host: 'firewall-cmd --permanent --add-port=9732/tcp' and --reload, 9733/tcp for Prometheus"
  fi
}

# Waits until the new connection is there or is known to fail, for as long as a server that restarts may need.
agent_summary() {
  systemctl -q is-active sysmon-agent.service || return 0
  tries=0
  reason='no answer from the agent yet'
  until
    link=$(link_state)
    # A try that is under way says nothing of the one before.
    case $link in waiting* | refused*) reason=${link#* } ;; esac
    case $link in connected* | refused*) true ;; *) [ "$tries" -ge 15 ] ;; esac
  do
    tries=$((tries + 1))
    sleep 1
  done
  case $link in
    connected*) say "${link#* }" ;;
    *)
      warn "the agent runs and keeps its reports, but is not connected: $reason"
      case $reason in
        *'cannot be resolved'*) warn 'this host cannot resolve that name: put an address into SYSMON_SERVER in /etc/sysmon/agent.env, or set SYSMON_ADVERTISE=ADDRESS:9732 on the server and enrol again' ;;
        *) warn "see 'sysmon-agent status' and 'journalctl -u sysmon-agent'; the server's port (9732/tcp) must be open to this host" ;;
      esac
      # Joining was asked for and did not work; at an upgrade the server may just be away.
      [ -z "$join_key" ] || exit 1
      ;;
  esac
}

# The state of the connection, then what to report of it.
link_state() {
  "$base/bin/sysmon-agent" status --json 2>/dev/null | "$lib/current/node" -e '
    const { name, link } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const host = require("node:os").hostname();
    const alias = name === host ? "" : "; this host is called " + host;
    console.log(link.state, link.peer ? "agent " + name + " is connected to " + link.peer + alias : link.reason);' 2>/dev/null || echo unknown
}

# Removing -------------------------------------------------------------------------------------------------------------

uninstall() {
  [ -n "$root" ] || [ "$(id -u)" = 0 ] || die "not root: run 'sudo $0 $command'"
  removed=''
  for each in agent server; do
    unit=sysmon-$each.service
    if [ -z "$root" ] && [ -e "$base/lib/systemd/system/$unit" ] && [ -d /run/systemd/system ]; then
      systemctl -q disable --now "$unit"
    fi
    remove "$base/lib/systemd/system/$unit" "$base/bin/sysmon-$each" "$base/lib/sysusers.d/sysmon-$each.conf"
  done
  remove "$base/share/doc/sysmon" "$lib"
  remove_empty_folders
  if [ -z "$root" ] && [ -n "$removed" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl reset-failed sysmon-agent.service sysmon-server.service 2>/dev/null || :
  fi
  [ -z "$purge" ] || purge
  if [ -n "$removed" ]; then say 'sysmon is removed'; else say 'nothing to remove: sysmon is not installed'; fi
  [ -n "$purge" ] || say_what_is_kept
}

# Those that an install makes where they are missing.
remove_empty_folders() {
  for folder in lib/sysmon/releases lib/sysmon lib/systemd/system lib/systemd lib/sysusers.d share/doc; do
    rmdir "$base/$folder" 2>/dev/null || :
  done
}

remove() {
  for path in "$@"; do
    if [ -e "$path" ] || [ -L "$path" ]; then
      rm -rf "$path"
      removed=yes
    fi
  done
}

purge() {
  remove "$etc" "$root/var/lib/sysmon-agent" "$root/var/lib/sysmon-server"
  [ -z "$root" ] || return 0
  for user in sysmon-agent sysmon-server; do
    getent passwd "$user" >/dev/null || continue
    userdel "$user"
    # Where userdel does not take the group of the same name along.
    ! getent group "$user" >/dev/null || groupdel "$user"
    removed=yes
  done
}

say_what_is_kept() {
  kept=''
  for path in "$etc" "$root/var/lib/sysmon-agent" "$root/var/lib/sysmon-server"; do
    [ ! -e "$path" ] || kept="$kept $path"
  done
  [ -z "$kept" ] || say "kept:$kept; 'uninstall --purge' removes configuration, keys, state and users too"
}

main "$@"
exit 0

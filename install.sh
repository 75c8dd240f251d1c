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
       install.sh uninstall [agent|server]  remove one of the programs, or both
                            [--purge]       also its configuration, keys, state and user

A host joins with the line that `sysmon-server enroll NAME` prints on the server. install.sh reads it from FILE, or from
standard input if that is no terminal; a host that has not joined yet asks for it at the terminal. The server's own host
needs none.

  sudo sysmon-server enroll web-1 | ssh web-1 sudo ./install.sh agent

A host that has joined joins again with another line, and changes nothing with the same one. `sudo sysmon-agent join` does
it without install.sh.

Options:
  --prefix DIR   where the programs go: where they are, or /usr/local
  --root DIR     for packagers: put the files below DIR; no user, key or unit of this host is touched, no root needed
  --downgrade    also where the other program on this host is newer; both are replaced together
  --yes          destroy the fleet key without asking (uninstall --purge)

A second run changes nothing. An upgrade keeps configuration, keys and state, restarts what has changed, and restores the
old version if the new one does not start.
Exit codes: 0 success, 1 failure, 2 wrong usage or no join line, 130 interrupted at the prompt.
END
}

main() {
  command='' role='' join_file='' purge='' yes='' downgrade='' root='' prefix=''
  parse "$@"
  here=$(cd "$(dirname "$0")" && pwd -P)
  find_prefix
  base=$root$prefix lib=$root$prefix/lib/sysmon etc=$root/etc/sysmon
  # systemd reads units in the first two prefixes and in /etc.
  case $prefix in
    /usr | /usr/local) units=$base/lib/systemd/system sysusers=$base/lib/sysusers.d ;;
    *) units=$root/etc/systemd/system sysusers=$root/etc/sysusers.d ;;
  esac
  case $command in
    uninstall) uninstall ;;
    *)
      role=$command
      install_role
      ;;
  esac
}

# Where the programs are, or else go: below the prefix of this script if it is an installed one, or of the installed units.
find_prefix() {
  present=''
  if [ -z "$root" ]; then
    for folder in /etc/systemd/system /usr/local/lib/systemd/system /usr/lib/systemd/system; do
      for each in agent server; do
        [ -n "$present" ] || present=$(sed -n 's|^ExecStart=/bin/sh \(.*\)/lib/sysmon/current/start .*|\1|p' "$folder/sysmon-$each.service" 2>/dev/null || :)
      done
    done
    case $here in */lib/sysmon/releases/*) present=${here%/lib/sysmon/releases/*} ;; esac
  fi
  [ -z "$prefix" ] || [ -z "$present" ] || [ "$prefix" = "$present" ] ||
    wrong "option '--prefix' is '$prefix', but sysmon is installed below '$present': leave the option out, or uninstall that first"
  prefix=${prefix:-${present:-/usr/local}}
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) usage && exit 0 ;;
      server | agent | uninstall)
        if [ "$command" = uninstall ] && [ "$1" != uninstall ] && [ -z "$role" ]; then role=$1; else
          [ -z "$command" ] || wrong "'${role:-$command}' and '$1' are given: expected one of them"
          command=$1
        fi
        ;;
      --purge) purge=yes ;;
      --yes) yes=yes ;;
      --downgrade) downgrade=yes ;;
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
  [ -z "$yes" ] || [ -n "$purge" ] || wrong "option '--yes' does not belong to '$command': expected with uninstall --purge"
  [ -z "$downgrade" ] || [ "$command" != uninstall ] || wrong "option '--downgrade' does not belong to 'uninstall'"
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
  changed='' changed_files='' restarted='' committed='' created_release='' created_archives='' kept=0 join_line=''
  if [ -z "$root" ]; then
    check_host
    # Not in /run/lock, which is everybody's: a link there would lead root elsewhere, and any user could hold the lock.
    exec 9>/run/sysmon-install.lock
    flock -n 9 || die "another install.sh is running: wait for it"
  fi
  ! is_packaged "$role" || die "the Debian package sysmon-$role is installed on this host: upgrade that, or run 'apt remove sysmon-$role' first, which keeps options, keys and state"
  work=$(mktemp -d)
  mkdir "$work/kept"
  : >"$work/kept.list"
  trap 'clean_up' EXIT
  trap 'exit 1' HUP INT TERM
  find_files
  check_signature
  roles=$role
  for other in agent server; do
    [ "$other" = "$role" ] || is_packaged "$other" || [ ! -e "$units/sysmon-$other.service" ] || roles="$roles $other"
  done
  refuse_downgrade
  find_node
  [ "$role" != agent ] || [ -n "$root" ] || take_join_line
  stage
  case " $roles " in *' server '*) [ -n "$root" ] || add_archives ;; esac
  for each in $roles; do configure "$each"; done
  [ -z "$join_line" ] || join
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

# Where the administrator has put the public key of releases, nothing else is installed. This script is one of the files that
# are signed, so that the archive of a first install is checked by hand: see docs/operating.md.
check_signature() {
  public=$etc/release.pub
  [ -e "$public" ] && [ "$bundles" = "$here/dist" ] && [ -e "$here/VERSION" ] || return 0
  command -v minisign >/dev/null || die "'minisign' is missing, with which $public is to check this release: apt-get install minisign"
  minisign -Vq -p "$public" -m "$here/SHA256SUMS" >/dev/null 2>&1 || die "this release is not signed with the key of $public: get another one, or remove that file"
  (cd "$here" && sha256sum --quiet --strict -c SHA256SUMS >"$work/sums.log" 2>/dev/null) || die "a file of this release is not the one that was signed: $(head -n 1 "$work/sums.log")"
}

build() {
  command -v node >/dev/null || die "'node' is missing, which a clone is built with: install Node.js 20.15 or newer with npm, or use a release"
  in_clone node "$here/scripts/build.mjs" --bundle || {
    cat "$work/build.log" >&2
    die "the build failed, see above; 'npm run build' as $user repeats it"
  }
}

# As whom the clone belongs to, so that it holds no files of root afterwards.
in_clone() {
  user=$(stat -c %U "$here")
  [ "$(id -u)" != 0 ] || [ -z "${SUDO_USER:-}" ] || [ "$SUDO_USER" = root ] || user=$SUDO_USER
  if [ "$(id -u)" = 0 ] && [ "$user" != root ]; then
    set -- runuser -u "$user" -- env HOME="$(getent passwd "$user" | cut -d: -f6)" "$@"
  fi
  (cd "$here" && "$@") </dev/null >"$work/build.log" 2>&1
}

# Both programs of a host are one release: no older one for a program that nobody named.
refuse_downgrade() {
  [ -z "$downgrade" ] && [ "$roles" != "$role" ] || return 0
  present=$(readlink "$lib/current" 2>/dev/null) || return 0
  present=${present#releases/} present=${present%-*}
  # Before a release come its candidates: 0.2.0-rc1, 0.2.0.
  newest=$(printf '%s\n' "$present" "$version" | sed 's/-/~/' | sort -V | tail -n 1 | sed 's/~/-/')
  [ "$newest" = "$version" ] ||
    wrong "sysmon-${roles#"$role "} $present is on this host too, and would be replaced by the older $version: use a release of $present or newer, or --downgrade"
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

# The join line, checked, with the one address of the server that answers: from the file that was named, from standard
# input, or from a prompt. Empty where this host has joined and is given no other one.
take_join_line() {
  if [ -n "$join_file" ]; then
    join_line=$(new_agent join --check-only --join-file "$join_file")
  elif [ ! -t 0 ] || { ! is_configured && ! is_server; }; then
    join_line=$(new_agent join --check-only)
  fi
  if [ -z "$join_line" ] && is_server; then
    own=$(own_line)
    [ -z "$own" ] || join_line=$(printf '%s\n' "$own" | new_agent join --check-only --join-file -)
  fi
}

# As it is before anything is installed.
new_agent() { "${node:-$runtime}" "$bundles/sysmon-agent.cjs" "$@"; }

is_configured() {
  [ -e "$etc/agent.key" ] || grep -q '^[[:space:]]*SYSMON_SERVER[[:space:]]*=' "$etc/agent.env" 2>/dev/null
}

is_server() { [ -e "$etc/fleet.key" ] && [ -e "$lib/current/sysmon-server.cjs" ]; }

# From this host's own server; empty where the agent has a key of its present fleet key, or another server.
own_line() {
  name=$(uname -n) identity=''
  if is_configured; then
    grep -Eq "^SYSMON_SERVER=(127\.0\.0\.1|localhost|$name):" "$etc/agent.env" && [ -e "$etc/agent.key" ] || return 0
    identity=$(cut -d ' ' -f 2 "$etc/agent.key")
    name=${identity%%:*}
  fi
  line=$("$lib/current/node" "$lib/current/sysmon-server.cjs" enroll "$name" 2>/dev/null) || return 0
  # shellcheck disable=SC2086 # into its words
  set -- $line
  [ "${3##*:}" = "${identity##*:}" ] || printf '%s\n' "$line"
}

# A new release beside the present one; nothing of what runs is touched.
stage() {
  new=$lib/releases/.new
  rm -rf "$new"
  mkdir -p "$new/doc" "$new/systemd"
  cp "$bundles/sysmon-agent.cjs" "$bundles/sysmon-server.cjs" "$here/install.sh" "$here/systemd/start" "$new/"
  for file in agent.env server.env sysmon-agent.conf sysmon-server.conf; do cp "$here/systemd/$file" "$new/systemd/"; done
  for each in agent server; do
    sed "s|/usr/local/|$prefix/|g" "$here/systemd/sysmon-$each.service" >"$new/systemd/sysmon-$each.service"
    launcher "$each" >"$new/systemd/sysmon-$each"
  done
  for file in "$bundles"/doc/* "$here/LICENSE" "$bundles/THIRD-PARTY.txt" "$here/prometheus" "$here/examples"; do
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
lib=$prefix/lib/sysmon/current
exec /bin/sh "\$lib/start" "\$lib/sysmon-$1.cjs" "\$@"
END
}

# The releases that `sysmon-server enroll` offers to hosts, beside the programs: from a clone those of both machines, from a
# release itself. Without them the server works too.
add_archives() {
  [ ! -d "$new/install" ] || return 0
  rm -rf "$new/install.part"
  mkdir "$new/install.part"
  if [ -e "$here/src/agent/main.ts" ]; then
    say 'making the release archives for other hosts'
    for machine in x64 arm64; do
      # Without a network npm would try for half a minute.
      if in_clone env npm_config_fetch_retries=0 node "$here/scripts/package.mjs" --no-sbom "$machine"; then
        cp "$here/release/sysmon-$version-linux-$machine.tar.gz" "$new/install.part/"
      else
        warn "there is no release archive for $machine: $(tail -n 1 "$work/build.log"); 'npm run package $machine' repeats it"
      fi
    done
  elif [ -x "$here/runtime/node" ]; then
    pack "$here" "$new/install.part"
  fi
  chmod -R u+rwX,go+rX,go-w "$new/install.part"
  mv "$new/install.part" "$new/install"
  created_archives=$new/install
}

release_files() {
  find . -maxdepth 1 -printf '%P\n' | grep -Ex 'install\.sh|LICENSE|[A-Z]+\.md|VERSION|SHA256SUMS(\.minisig)?|docs|examples|prometheus|systemd|dist|runtime' | sort
}

# FROM TO: the archive that this release was unpacked from, byte for byte where nobody has touched its files. Nothing else
# that lies in its folder gets into it.
pack() {
  case $(od -An -tu2 -j18 -N2 "$1/runtime/node" | tr -d ' ') in
    62) name=sysmon-$version-linux-x64 ;;
    183) name=sysmon-$version-linux-arm64 ;;
    *) return 0 ;;
  esac
  (
    cd "$1"
    export LC_ALL=C
    # shellcheck disable=SC2046 # into the names, in which there are no blanks
    tar --sort=name --mtime="@$(stat -c %Y VERSION)" --owner=0 --group=0 --numeric-owner --format=ustar --mode=u+rwX,go+rX,go-w \
      --transform "s,^\./*,$name/," -cf "$2/$name.tar" --no-recursion ./ --recursion $(release_files | sed 's,^,./,')
    gzip -n -6 "$2/$name.tar"
  )
}

# The role's user, folders, options and key: made where they are missing, and never overwritten.
configure() {
  put "$new/systemd/sysmon-$1.conf" "$sysusers/sysmon-$1.conf" 644
  mkdir -p "$etc"
  if [ -z "$root" ]; then
    { getent passwd "sysmon-$1" && getent group sysmon; } >/dev/null || {
      systemd-sysusers "$sysusers/sysmon-$1.conf" 2>"$work/sysusers.log" || die "the user sysmon-$1 cannot be made: $(cat "$work/sysusers.log")"
      changed=yes
      say "made the user sysmon-$1"
    }
    [ -d "/var/lib/sysmon-$1" ] || install -d -o "sysmon-$1" -g "sysmon-$1" -m 0750 "/var/lib/sysmon-$1"
    # Root's, so that its timers write there. Not install -d, which would follow a link.
    [ "$1" != agent ] || [ -e /var/lib/sysmon-agent/textfile ] || mkdir -m 0755 /var/lib/sysmon-agent/textfile
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

# ROLE COMMAND …: as the user of the unit.
as_unit() {
  user=sysmon-$1
  shift
  setpriv --reuid "$user" --regid "$user" --clear-groups env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# The key, and the options that name it and the server.
join() {
  for file in agent.key agent.env; do
    remember "$etc/$file"
    [ ! -e "$etc/$file" ] || cp -p "$etc/$file" "$work/$file.before"
  done
  printf '%s\n' "$join_line" | "$new/node" "$new/sysmon-agent.cjs" join --no-restart --offline --join-file - --config.file "$etc/agent.env"
  for file in agent.key agent.env; do
    cmp -s "$work/$file.before" "$etc/$file" || { changed=yes && changed_files="$changed_files $etc/$file"; }
  done
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
  checked=0
  # Whether the server answers is seen when the agent is started.
  offline=''
  [ "$1" = server ] || offline=--offline
  # shellcheck disable=SC2086 # no word at all where it is empty
  as_unit "$1" "$new/node" "$new/sysmon-$1.cjs" check $offline >"$work/check.log" 2>&1 || checked=$?
  case $checked in
  0) ;;
  # A Prometheus that does not answer, or does not suit: the server starts all the same.
  3) warn "$(grep ': error: ' "$work/check.log")" ;;
  *) die "the options of /etc/sysmon/$1.env are refused, nothing was changed in what runs: $(sed "s/^sysmon-$1: //" "$work/check.log" | paste -s -d ';' | sed 's/;/; /g')" ;;
  esac
}

# Which units the new files concern; asked before the switch, while the old ones can be compared.
decide_restarts() {
  restart=''
  for each in $roles; do
    if ! cmp -s "$lib/current/sysmon-$each.cjs" "$new/sysmon-$each.cjs" || ! cmp -s "$lib/current/node" "$new/node" ||
      ! cmp -s "$units/sysmon-$each.service" "$new/systemd/sysmon-$each.service" || has_new_options "$each"; then
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
    [ -e "$units/sysmon-$each.service" ] || first=$each
    put "$new/systemd/sysmon-$each.service" "$units/sysmon-$each.service" 644
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
  [ -z "$created_archives" ] || rm -rf "$created_archives"
  [ -z "$created_release" ] || rm -rf "$created_release"
  remove_empty_folders
  if [ -n "$root" ] || [ -z "$changed" ]; then return; fi
  systemctl daemon-reload
  for unit in $restarted; do
    if [ -e "$units/$unit" ]; then systemctl start "$unit"; else systemctl reset-failed "$unit" 2>/dev/null; fi
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
  [ -n "$root" ] || [ -z "$created_release" ] || [ "$roles" = "$role" ] || say "so is sysmon-${roles#"$role "} $version: both are replaced together"
  [ -n "$changed" ] || say "nothing to change: sysmon-$role $version is installed"
  [ -z "$root" ] || { say "sysmon-$role $version is below $root" && return; }
  case $role in
    server) server_summary ;;
    agent) agent_summary ;;
  esac
}

server_summary() {
  systemctl -q is-active sysmon-server.service || return 0
  "$base/bin/sysmon-server" check >"$work/checked" || :
  while read -r line; do say "$line"; done <"$work/checked"
  say "'sudo sysmon-server enroll NAME' prints the line with which a host joins; Prometheus scrapes http://$(uname -n):9733/metrics"
  say 'ports to open in a firewall: 9732/tcp for agents, 9733/tcp for Prometheus alone'
  say 'where agents reach this host under another name or address than join lines say, set SYSMON_ADVERTISE=ADDRESS:9732 in /etc/sysmon/server.env'
  if command -v ufw >/dev/null && ufw status 2>/dev/null | grep -q '^Status: active'; then
    say "ufw is active on this host: 'ufw allow 9732/tcp', and 9733/tcp from the address of Prometheus"
  elif command -v firewall-cmd >/dev/null && firewall-cmd -q --state 2>/dev/null; then
    say "firewalld is active on this host: 'firewall-cmd --permanent --add-port=9732/tcp' and --reload, 9733/tcp for Prometheus"
  fi
}

# Waits until the connection is there or is known to fail, for as long as a server that restarts may need.
agent_summary() {
  systemctl -q is-active sysmon-agent.service || return 0
  if "$base/bin/sysmon-agent" status --wait >"$work/status" 2>&1; then
    while read -r line; do say "$line"; done <"$work/status"
  else
    warn "$(sed 's/^sysmon-agent: //' "$work/status")"
    # Joining was asked for and did not work; at an upgrade the server may just be away.
    [ -z "$join_line" ] || exit 1
  fi
}

# Removing -------------------------------------------------------------------------------------------------------------

uninstall() {
  [ -n "$root" ] || [ "$(id -u)" = 0 ] || die "not root: run 'sudo $0 $command'"
  removed='' roles=${role:-agent server}
  for each in $roles; do
    [ -z "$purge" ] || ! is_packaged "$each" || die "sysmon-$each is a Debian package, to which files in /etc/sysmon and /var/lib belong: run 'apt purge sysmon-$each' first, or uninstall without --purge"
  done
  [ -z "$purge" ] || confirm_purge
  for each in $roles; do
    unit=sysmon-$each.service
    if is_packaged "$each"; then
      say "sysmon-$each is a Debian package: 'apt remove sysmon-$each' removes it"
      continue
    fi
    if [ -z "$root" ] && [ -e "$units/$unit" ] && [ -d /run/systemd/system ]; then
      systemctl -q disable --now "$unit"
    fi
    remove "$units/$unit" "$base/bin/sysmon-$each" "$sysusers/sysmon-$each.conf"
  done
  # The other program runs on the same release.
  if [ ! -e "$units/sysmon-agent.service" ] && [ ! -e "$units/sysmon-server.service" ]; then
    remove "$base/share/doc/sysmon" "$lib"
  fi
  remove_empty_folders
  if [ -z "$root" ] && [ -n "$removed" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    for each in $roles; do systemctl reset-failed "sysmon-$each.service" 2>/dev/null || :; done
  fi
  if [ -n "$purge" ]; then for each in $roles; do purge "$each"; done; fi
  what=sysmon
  [ -z "$role" ] || what=sysmon-$role
  if [ -n "$removed" ]; then say "$what is removed"; else say "nothing to remove: $what is not installed"; fi
  [ -n "$purge" ] || say_what_is_kept
}

# Whoever destroys the fleet key has to enrol every host again.
confirm_purge() {
  [ "$role" != agent ] && [ -e "$etc/fleet.key" ] && [ -z "$yes" ] || return 0
  reason="this destroys the fleet key $etc/fleet.key: without a copy of it every agent has to join again"
  [ -t 0 ] || wrong "$reason; add --yes"
  printf 'sysmon: %s. Go on? (yes or no) ' "$reason" >&2
  read -r answer || :
  [ "$answer" = yes ] || wrong 'nothing was removed'
}

# By dpkg, whose files these are then, whatever the prefix is.
is_packaged() { [ -e "$root/usr/lib/sysmon-$1/sysmon-$1.cjs" ]; }

# Those that an install makes where they are missing.
remove_empty_folders() {
  for folder in lib/sysmon/releases lib/sysmon lib/systemd/system lib/systemd lib/sysusers.d share/doc; do
    rmdir "$base/$folder" 2>/dev/null || :
  done
  # A prefix of its own, /opt/sysmon.
  case $prefix in /usr | /usr/local) ;; *) rmdir "$root/etc/sysusers.d" "$base/lib" "$base/bin" "$base/share" "$base" 2>/dev/null || : ;; esac
}

remove() {
  for path in "$@"; do
    if [ -e "$path" ] || [ -L "$path" ]; then
      rm -rf "$path"
      removed=yes
    fi
  done
}

# ROLE: what an uninstall keeps.
purge() {
  # By name: the folder may be a link, or the other program's too.
  case $1 in agent) keys=agent.key ;; server) keys='fleet.key revoked.json' ;; esac
  for file in "$1.env" "$1.env.new" $keys; do remove "$etc/$file"; done
  if [ -d "$etc" ] && [ -z "$(ls -A "$etc/")" ]; then purge_folder "$etc"; fi
  purge_folder "$root/var/lib/sysmon-$1"
  [ -z "$root" ] || return 0
  user=sysmon-$1
  getent passwd "$user" >/dev/null || return 0
  userdel "$user"
  # Where userdel does not take the group of the same name along.
  ! getent group "$user" >/dev/null || groupdel "$user"
  # Of those who may look at either program.
  rm -rf "/run/sysmon/$1"
  rmdir /run/sysmon 2>/dev/null || :
  getent passwd sysmon-agent sysmon-server >/dev/null || ! getent group sysmon >/dev/null || groupdel sysmon
  removed=yes
}

# With what a link leads to.
purge_folder() {
  if [ -L "$1" ]; then
    target=$(readlink -f "$1")
    [ ! -d "$target" ] || remove "$target"
  fi
  remove "$1"
}

say_what_is_kept() {
  kept=''
  for each in $roles; do
    for path in "$etc/$each.env" "$etc/$each.key" "$root/var/lib/sysmon-$each"; do
      [ ! -e "$path" ] || kept="$kept $path"
    done
  done
  case " $roles " in *' server '*) [ ! -e "$etc/fleet.key" ] || kept="$kept $etc/fleet.key" ;; esac
  [ -z "$kept" ] || say "kept:$kept; '--purge' removes configuration, keys, state and users too"
}

main "$@"
exit 0

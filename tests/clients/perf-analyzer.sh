#!/bin/sh
# Makes DIR/perf_analyzer, Triton's load generator: tests/clients/perf-analyzer.sh PYTHON DIR
#
# Its wheel wants a C library of 2.38 or newer. An older Debian gets those of the release after it, unpacked beside the
# program and for it alone.
set -eu
python=$1 target=$2 version=2.60.0 needed=2.38 newer=trixie
rm -rf "$target" && mkdir -p "$target/wheel"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --platform manylinux_2_38_x86_64 --dest "$target/wheel" "perf-analyzer==$version"
"$python" -m zipfile --extract "$target"/wheel/*.whl "$target/wheel"
program=$target/wheel/perf_analyzer/bin/perf_analyzer
chmod +x "$program"
own=$(ldd --version | sed -n '1s/.* //p')
if [ "$(printf '%s\n' "$needed" "$own" | sort --version-sort | head -n 1)" = "$needed" ]; then
    ln -s "wheel/perf_analyzer/bin/perf_analyzer" "$target/perf_analyzer"
    exit
fi
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null | grep -oE '(https?|file)://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ')
keys=/usr/share/keyrings/debian-archive-keyring.gpg
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages" "$target/libraries"
echo "deb [signed-by=$keys] ${mirror:?no mirror of Debian is among the sources of apt} $newer main" >"$work/sources.list"
set -- -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
    -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -qq
apt-get "$@" update
(cd "$work/packages" && apt-get "$@" download libc6 libgcc-s1 libssl3t64 libstdc++6 zlib1g libzstd1)
for package in "$work"/packages/*.deb; do dpkg-deb --extract "$package" "$target/libraries"; done
libraries=$(dirname "$(find "$target/libraries" -name libc.so.6)")
cat >"$target/perf_analyzer" <<END
#!/bin/sh
exec "$(realpath "$libraries")/ld-linux-x86-64.so.2" --library-path "$(realpath "$libraries")" "$(realpath "$program")" "\$@"
END
chmod +x "$target/perf_analyzer"

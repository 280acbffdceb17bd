#!/bin/sh
# What cryptctl is for, on a disk image, without root: make a node's disk, format
# its empty partitions encrypted, rotate the keys, and prove what opens and what
# does not any more. Every line that begins with $ is a command you can type.
#
#   demo/run.sh [path of cryptctl]
#
# A real node leaves out --iter-time: its passphrases then cost two seconds a try.
set -eu

cryptctl=$(realpath "${1:-./cryptctl}")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
servers=
# stop ends the servers that are started below.
stop() {
	for server in $servers; do
		kill "$server" 2>/dev/null || true
		wait "$server" || true
	done
	servers=
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
cp "$here"/*.yaml "$work"
cd "$work"
PATH=$(dirname "$cryptctl"):$PATH:/usr/sbin:/sbin
uuid=6a1f0c9e-3b52-4d87-9e60-f2c41b7d8a35
state="--volume STATE --partition STATE --node-uuid $uuid"
ephemeral="--volume EPHEMERAL --partition EPHEMERAL"
data="--volume u-data --partition u-data --node-uuid $uuid"

title() { printf '\n== %s\n' "$*"; }
run() {
	printf '$ %s\n' "$*"
	"$@"
}
# expect CODE COMMAND...: the command must end with that exit code.
expect() {
	want=$1
	shift
	printf '$ %s\n' "$*"
	code=0
	"$@" || code=$?
	if [ "$code" -ne "$want" ]; then
		echo "demo: exit code $code, expected $want" >&2
		exit 1
	fi
	printf '(exit code %s)\n' "$code"
}

title "A disk image with the partitions of a node"
run cryptctl disk create node.img --size 256M --partition META=1M --partition STATE=100M --partition EPHEMERAL=100M --partition u-data=rest

title "What the machine configuration says"
run cryptctl config validate --file machine.yaml

title "Format the empty partitions, encrypted"
run cryptctl format node.img $state --file machine.yaml --iter-time 100
run cryptctl format node.img $ephemeral --file machine.yaml --iter-time 100
echo "...and only empty ones:"
expect 6 cryptctl format node.img $state --file machine.yaml

title "Rotate the keys of STATE: the plan"
expect 3 cryptctl plan node.img $state --file rotated.yaml --exit-code

title "A backup of the header, and the rotation"
run cryptctl header backup node.img state.backup --partition STATE
run cryptctl sync node.img $state --file rotated.yaml --iter-time 100
expect 0 cryptctl plan node.img $state --file rotated.yaml --exit-code

title "Rotate EPHEMERAL, whose only key changes: the old one opens it"
printf '%s' 'ephemeral, first' >old.key
printf '%s' 'ephemeral, second' >new.key
expect 1 cryptctl sync node.img $ephemeral --file rotated.yaml
run cryptctl sync node.img $ephemeral --file rotated.yaml --key-file old.key --iter-time 100

title "What opens, and what does not any more"
run cryptctl key test node.img $state --file rotated.yaml
printf '%s' 'the recovery passphrase of January' >january.key
printf '%s' 'the recovery passphrase of February' >february.key
expect 5 cryptctl open node.img --test --partition STATE --key-file january.key
expect 0 cryptctl open node.img --test --partition STATE --key-file february.key
expect 5 cryptctl open node.img --test --partition EPHEMERAL --key-file old.key
expect 0 cryptctl open node.img --test --partition EPHEMERAL --key-file new.key

if command -v swtpm >/dev/null; then
	title "A key that a TPM seals: swtpm plays the TPM"
	mkdir tpm
	swtpm socket --tpm2 --tpmstate dir=tpm --server type=unixio,path=tpm/socket --flags not-need-init,startup-clear >/dev/null 2>&1 &
	servers=$!
	tpm="--tpm swtpm:$work/tpm/socket"
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ -S tpm/socket ] || sleep 0.2
	done
	printf '%s' 'blue elephant' >pin
	printf '%s' 'red elephant' >wrong.pin
	run cryptctl sync node.img $ephemeral --file sealed.yaml $tpm --pin-file pin --iter-time 100
	run cryptctl key test node.img $ephemeral --file sealed.yaml $tpm --pin-file pin
	expect 5 cryptctl open node.img --test $ephemeral --file sealed.yaml --slot 1 $tpm --pin-file wrong.pin
	expect 0 cryptctl open node.img --test $ephemeral --file sealed.yaml --slot 1 $tpm --pin-file pin
	echo "...and once the latch is closed, it unseals nothing until the next boot:"
	run cryptctl tpm latch $tpm
	expect 5 cryptctl open node.img --test $ephemeral --file sealed.yaml --slot 1 $tpm --pin-file pin
else
	title "swtpm is not installed, so no TPM was asked (Debian: swtpm)"
fi

title "A key that a key server seals: cryptctl kms serve is the server"
run cryptctl kms init fleet --host localhost
sed -i 's/":4050"/"127.0.0.1:0"/; s/"127.0.0.1:405[12]"/"127.0.0.1:0"/' fleet/kms.yaml # any ports that are free
cryptctl kms serve fleet 2>fleet.log &
servers="$servers $!"
# listens WHOM: where it listens for them, when it does.
listens() {
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		sed -n "s/.*for=$1 address=127.0.0.1:\([0-9]*\).*/localhost:\1/p" fleet.log | grep . && return
		sleep 0.2
	done
	cat fleet.log >&2
	return 1
}
nodes=$(listens nodes)
operators=$(listens operators)
sed 's/^/          /' fleet/ca.crt >authority
sed -i -e "s/SERVER/$nodes/" -e '/AUTHORITY/r authority' -e '/AUTHORITY/d' served.yaml
echo "It knows no node, and has an operator approve each:"
expect 1 cryptctl format node.img $data --file served.yaml --iter-time 100
run cryptctl kms node approve $uuid --dir fleet --server "$operators"
run cryptctl format node.img $data --file served.yaml --iter-time 100
expect 0 cryptctl open node.img --test $data --file served.yaml --slot 1
echo "...and with the server stopped, the other key opens at once:"
stop
expect 5 cryptctl open node.img --test $data --file served.yaml --slot 1 --kms-timeout 1s
expect 0 cryptctl open node.img --test $data --file served.yaml
echo "What the server was asked, and answered:"
run cryptctl kms audit tail -n 4 fleet/audit
run cryptctl kms audit verify fleet/audit

title "Sound, by our own check"
run cryptctl check node.img --partition STATE
run cryptctl check node.img --partition EPHEMERAL
run cryptctl check node.img --partition u-data

if command -v cryptsetup >/dev/null; then
	title "And by the system's cryptsetup: $(cryptsetup --version)"
	# It takes no partition of an image, so it gets a copy of STATE.
	set -- $(cryptctl disk list node.img | awk '$2 == "STATE" { print $3 }')
	run dd if=node.img of=state.img bs=1M iflag=skip_bytes,count_bytes skip="$1" count=100M status=none
	run cryptsetup open --test-passphrase --key-file february.key state.img
	expect 2 cryptsetup open --test-passphrase --key-file january.key state.img
	run cryptsetup luksDump state.img
else
	title "cryptsetup is not installed, so it was not asked (Debian: cryptsetup-bin)"
fi

title "The slots at the end"
run cryptctl inspect node.img --partition STATE
run cryptctl inspect node.img --partition EPHEMERAL

title "Done"

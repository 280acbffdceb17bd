#!/bin/sh
# packages.sh LIST... makes sure that the Debian packages of the lists are
# installed: as root it installs those that are missing, otherwise it names them
# and fails.
set -eu

wanted=$(cat "$@" | sed 's/#.*//' | sort -u)
missing=
for package in $wanted; do
	status=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) || status=
	case $status in
	ii*) ;;
	*) missing="$missing $package" ;;
	esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	echo "The tests need these Debian packages, which are not installed:$missing" >&2
	echo "Install them with: sudo apt-get install$missing" >&2
	exit 1
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $missing

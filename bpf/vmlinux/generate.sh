#!/bin/sh
# Makes vmlinux.h for each architecture again, from the BTF of Debian's cloud
# kernels, which need not run here. Needs apt-get, dpkg-deb, bpftool and Go.
#
# usage: generate.sh [PACKAGE-VERSION]
set -eu

kernel=${1:-6.12.107+deb13}
suite=${SUITE:-trixie}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A package list of our own: the mirror is the machine's, the suite is not.
mirror=$(apt-get indextargets --format '$(SITE)' | grep -m1 '/debian/*$')
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/sources.list"
apt() {
	apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$work/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$work/cache" \
		-o APT::Architectures::=amd64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root "$@"
}
apt update

for arch in amd64 arm64; do
	package=linux-image-$kernel-cloud-$arch-unsigned
	mkdir -p "$work/$arch" "$here/$arch"
	(cd "$work/$arch" && apt download "$package:$arch" && dpkg-deb --fsys-tarfile ./*.deb | tar x --wildcards './boot/vmlinuz*')
	(cd "$here" && go run ./extract "$work/$arch"/boot/vmlinuz*) >"$work/$arch/btf"
	{
		echo "/* Types of Debian's Linux $kernel ($arch), by bpftool from the kernel's BTF. */"
		echo "/* A few names that authors want for themselves got the suffix ___kernel, which CO-RE ignores. */"
		# bpftool's version is of no consequence; its output is.
		bpftool btf dump file "$work/$arch/btf" format c |
			sed -E 's/\b(struct|union|enum) (key|state|stat|sample)\b/\1 \2___kernel/g'
	} >"$work/$arch/vmlinux.h"
	# Compressed without a time stamp: the same input gives the same file.
	gzip -9 -n <"$work/$arch/vmlinux.h" >"$here/$arch/vmlinux.h.gz"
	ls -l "$work/$arch/vmlinux.h" "$here/$arch/vmlinux.h.gz"
done

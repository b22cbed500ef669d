#!/bin/sh
# Make the packages of a version from the binaries in dist/: deb and rpm for amd64 and arm64, the image, the list of modules (SBOM), checksums.
#
#   scripts/packages.sh VERSION     after make build
#
# PACKAGER ("Name <address>") is who stands in the packages as their maintainer: whoever hands them on. This project has no mailbox, and
# Debian and rpm want an address: one below .invalid (RFC 2606) is nobody's, now and later. Reports go where SECURITY.md says.
#
# The same commit gives the same bytes: every time in them is the commit's (SOURCE_DATE_EPOCH).
set -eu

cd "$(dirname "$0")/.."
version=${1:?usage: packages.sh VERSION}
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
: "${PACKAGER:=pgbaton maintainers <maintainers@pgbaton.invalid>}"
export PACKAGER
root=$(pwd)
out=$root/dist/packages
PAGES=$root/dist/pages
rm -rf "$out" "$PAGES"
mkdir -p "$out"

# v0.2.0-3-gabc is later than v0.2.0, and a version without a tag is earlier than all. A hyphen would begin Debian's own revision.
case $version in
v[0-9]*) PACKAGE_VERSION=$(echo "${version#v}" | sed 's/-/+/; s/-/./g') ;;
*) PACKAGE_VERSION=0.0.0~$(echo "$version" | tr - .) ;;
esac
export PACKAGE_VERSION PAGES

program=dist/linux_$(go env GOHOSTARCH)/pgbaton
case $("$program" version) in
"pgbaton $version "*) ;;
*) echo "packages.sh: dist has another version than $version: $("$program" version); run make build" >&2; exit 1 ;;
esac
"$program" _pages "$PAGES"
gzip -9n "$PAGES"/man1/*.1
cat >"$PAGES/changelog.yaml" <<END
- semver: $PACKAGE_VERSION
  date: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
  packager: $PACKAGER
  deb: {urgency: medium, distributions: [unstable]}
  changes:
    - note: "Release $version."
END
for ARCH in amd64 arm64; do
	BINARY=$root/dist/linux_$ARCH/pgbaton
	export ARCH BINARY
	for packager in deb rpm; do
		(cd packaging && go tool nfpm package --config nfpm.yaml --packager "$packager" --target "$out/")
	done
done
revision=$(git rev-parse HEAD)
digest=$(cd packaging && go run ./image -version "$version" -revision "$revision" -created "$SOURCE_DATE_EPOCH" -out "$out/image" \
	"amd64=$root/dist/linux_amd64/pgbaton" "arm64=$root/dist/linux_arm64/pgbaton")
# In one file, with the commit's time and in one order, so that its sum is the same, too.
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar -C "$out/image" \
	-cf "$out/pgbaton_$PACKAGE_VERSION.oci.tar" .
rm -r "$out/image"
for ARCH in amd64 arm64; do
	install -m 755 "dist/linux_$ARCH/pgbaton" "$out/pgbaton_${PACKAGE_VERSION}_linux_$ARCH"
	(cd packaging && go run ./sbom "$version" "$root/dist/linux_$ARCH/pgbaton") >"$out/pgbaton_${PACKAGE_VERSION}_linux_$ARCH.cdx.json"
done
(cd "$out" && sha256sum -- * >SHA256SUMS)
echo "dist/packages: version $PACKAGE_VERSION, image $digest"

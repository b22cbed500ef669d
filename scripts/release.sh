#!/bin/sh
# Make a release: everything that make packages makes, from a commit and nothing else.
#
#   scripts/release.sh VERSION     such as v0.2.0
#
# It refuses where something stands in the folder that the commit does not have, where CHANGELOG.md does not know the version, and where the
# version's tag is another commit. It neither tags nor publishes: it says how.
set -eu

cd "$(dirname "$0")/.."
version=${1:-}
refuse() { echo "release.sh: $*" >&2; exit 1; }

# Three numbers, and a pre-release behind a hyphen. (case knows no repetition.)
echo "$version" | grep -Eqx 'v(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}(-[0-9A-Za-z.]+)?' ||
	refuse "\"$version\" is not a version such as v0.2.0: make release VERSION=v0.2.0"
[ -z "$(git status --porcelain)" ] || {
	git status --short >&2
	refuse "the folder has changes that are not committed, or files that git does not know: commit or remove them"
}
head=$(git rev-parse HEAD)
if tagged=$(git rev-parse -q --verify "refs/tags/$version^{commit}"); then
	[ "$tagged" = "$head" ] || refuse "the tag $version is another commit, $tagged: release that one, or choose another version"
fi
grep -q "^## $version\( \|\$\)" CHANGELOG.md || refuse "CHANGELOG.md has no heading \"## $version\": write what is new"

rm -rf dist
make packages VERSION="$version"
(cd dist/packages && sha256sum --check --quiet --strict SHA256SUMS)
if [ "$(git rev-parse HEAD)" != "$head" ] || [ -n "$(git status --porcelain)" ]; then
	refuse "the folder has changed meanwhile: nothing is released"
fi
echo "dist/packages: release $version of $head"
[ -n "$tagged" ] || echo "to publish: git tag -s $version -m $version $head && git push origin $version, and upload dist/packages"

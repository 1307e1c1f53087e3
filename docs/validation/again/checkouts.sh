#!/usr/bin/env bash
# checkouts.sh vllm|sglang: an unpacked release becomes a git checkout, every file as it is; one that is there stays.
set -eu
. /root/again/env.sh
case $1 in
    vllm) from=/root/s/vllm/vllm to=/root/vllm_repo ;;
    sglang) from=/root/s/sgl/sglang to=/root/sgl_repo ;;
esac
[ ! -e "$to" ] || exit 0
mkdir "$to"
cp -al "$from" "$to/"
[ "$1" = vllm ] || cp -r $AGAIN/checks "$to/"
cd "$to"
find . -name __pycache__ -prune -exec rm -rf {} +
git init -q -b main
git config user.name "sotad validation"
git config user.email validation@localhost
git config core.compression 0
git add --all --force
GIT_AUTHOR_DATE='2026-11-22 00:00 +0000' GIT_COMMITTER_DATE='2026-11-22 00:00 +0000' git commit -qm "The released package, as it was"

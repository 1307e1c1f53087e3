#!/usr/bin/env bash
# checkouts.sh vllm|sglang: an unpacked release becomes a git checkout, every file as it is. vLLM's gets its worktree where the
# campaign will look for it: what torch.compile makes is found again only by the same files in the same folder.
set -eu
. /root/again/env.sh
case $1 in
    vllm) from=/root/s/vllm/vllm to=/root/vllm_repo ;;
    sglang) from=/root/s/sgl/sglang to=/root/sgl_repo ;;
esac
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
[ "$1" = sglang ] || git worktree add -q --detach "$STATE/worktrees/h200/vllm-$(git rev-parse HEAD | cut -c1-12)"
touch "/root/log/$1.committed"

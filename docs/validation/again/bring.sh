#!/usr/bin/env bash
# bring.sh FOLDER: what is worth keeping of the run, in pieces of 15 MiB; without checkouts, worktrees and sockets.
. /root/again/env.sh
mkdir -p "$1"
cp $MODEL/config.json /root/log/
tar -C /root -cz --exclude='*/worktrees' --exclude='*.sock' --exclude='*/pyc' --warning=no-file-changed state log |
    split -b 15M - "$1/st.tgz."
ls -l "$1"

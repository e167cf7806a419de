# A script with a trap that waits for a program in the foreground: the trap has to wait as well.
trap 'echo trapped; exit 0' TERM
echo "ready (pid: $$)"
sleep 1000

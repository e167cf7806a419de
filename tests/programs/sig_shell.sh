# A start script without `exec`: the shell stands between whoever stops it and the program.
# With the word `trap` it has a handler of its own.
if [ "$2" = trap ]; then
  trap 'echo trapped; exit 0' TERM
fi
"$1" -u "$(dirname "$0")/sig_modes.py" handler
echo "child ended with $?"

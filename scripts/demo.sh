#!/usr/bin/env bash
# The demo: a project in build/demo, two turns of the cycle with scripted users between them, two questions, and the
# proof that nothing was tampered with.
set -euo pipefail
cd "$(dirname "$0")/.."
project=build/demo
treadle=.venv/bin/treadle
python=.venv/bin/python
began=$(date +%s.%N)
server=""
users=""
cleanup() { for process in $users $server; do kill "$process" 2>/dev/null || true; done; wait 2>/dev/null || true; }
trap cleanup EXIT

[ -f "$project/treadle.yaml" ] || "$treadle" init "$project" --template docs-assistant
echo "project   $project/treadle.yaml: the only file you edit"
turns=$("$treadle" -C "$project" status --json | "$python" -c 'import json, sys; print((json.load(sys.stdin)["turn"] or {"number": 0})["number"])')
[ "$turns" -gt 0 ] || echo "TURN 1    (every line is a row in the ledger: treadle -C $project runs)"
"$treadle" -C "$project" run

if [ "$turns" -lt 2 ]; then
  echo
  echo "\$ treadle -C $project serve --port 0 &"
  "$treadle" -C "$project" serve --port 0 --json > build/demo-serve.json 2> build/demo-serve.log &
  server=$!
  until [ -s build/demo-serve.json ]; do
    kill -0 "$server" || { cat build/demo-serve.log; exit 1; }
    sleep 0.1
  done
  url=$("$python" -c 'import json; print(json.load(open("build/demo-serve.json"))["url"])')
  echo "serve     $url/v1 answers; it follows what is promoted"
  "$python" scripts/demo_users.py "$project" "$url" ask
  echo
  echo "TURN 2    (nobody starts it: treadle watch sees that it is due)"
  echo "\$ treadle -C $project watch --once"
  "$python" scripts/demo_users.py "$project" "$url" traffic > build/demo-users.log &
  users=$!
  "$treadle" -C "$project" watch --once || echo "watch     the new version is not promoted; the line above says why"
  kill "$users" 2>/dev/null || true
  wait "$users" 2>/dev/null || true
  users=""
fi

echo
echo "\$ treadle -C $project status"
"$treadle" -C "$project" status

mapfile -t questions < <("$python" scripts/demo_questions.py "$project")
echo
echo "\$ treadle -C $project ask \"${questions[0]}\" \"${questions[1]}\""
echo "          a document it was trained on, then a module it has never seen"
"$treadle" -C "$project" ask --recorded "${questions[@]}"

echo
document=${questions[0]#What does }; document=doc:${document% do?}
echo "\$ treadle -C $project lineage --down $document --limit 5"
"$treadle" -C "$project" lineage --down "$document" --limit 5

echo
echo "\$ treadle -C $project verify"
"$treadle" -C "$project" verify
printf 'Total %.0f s. Look around: %s -C %s console\n' "$(echo "$(date +%s.%N) $began" | awk '{print $1 - $2}')" "$treadle" "$project"
echo "Your own data: $treadle init mine --template chat --data chats.jsonl"
echo "What was not run on this machine: $treadle doctor"

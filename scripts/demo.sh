#!/usr/bin/env bash
# The demo: a project in build/demo, one turn of the cycle, two questions, and the proof that nothing was tampered with.
set -euo pipefail
cd "$(dirname "$0")/.."
project=build/demo
treadle=.venv/bin/treadle
began=$(date +%s.%N)

[ -f "$project/treadle.yaml" ] || "$treadle" init "$project" --template docs-assistant
echo "project   $project/treadle.yaml: the only file you edit"
echo "TURN 1    (every line is a row in the ledger: treadle -C $project runs)"
"$treadle" -C "$project" run

mapfile -t questions < <(.venv/bin/python scripts/demo_questions.py "$project")
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
printf 'Total %.0f s. Serve it: %s -C %s serve\n' "$(echo "$(date +%s.%N) $began" | awk '{print $1 - $2}')" "$treadle" "$project"
echo "Your own data: $treadle init mine --template chat --data chats.jsonl"
echo "What was not run on this machine: $treadle doctor"

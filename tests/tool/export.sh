# SPDX-License-Identifier: MIT
# The command export. tests/io/export_reader.py reads what it writes by the trainers' rules. Read by tests/tool.sh.

export_reader=$sections/../io/export_reader.py
golden=$sections/../golden

# exports TRAINER SCHEDULE.json [OPTION...]: the trainer is to read what is written for it, into a folder of its own.
to_read=() to_refuse=() exports_made=0
exports() {
  local trainer=$1 file=$2 folder=exported_$((++exports_made))
  shift 2
  check "export: $file for $trainer" "$tool" export "$file" --for "$trainer" "$@" -o $folder >/dev/null 2>export_notes
  to_read+=("$trainer" $folder "$file")
}

gemma_model=gemma_h1536_s4096_v256k
echo '{"layers": [{"kind": "embedding"}, {"count": 4}, {"kind": "mtp", "count": 2}, {"kind": "head"}]}' >with_mtp.json
for family in $("$tool" list | cut -d' ' -f1); do
  "$tool" generate $family --pp 4 --micro 8 -o exported_$family.json
  grep -q '"kind": *"bidirectional"' exported_$family.json && continue
  exports torchtitan exported_$family.json
  exports automodel exported_$family.json --model $gemma_model
done
for family in 1f1b interleaved_1f1b gpipe looped_bfs zb1p interleaved_zb hanayo; do
  exports jaxpp exported_$family.json
done
"$tool" generate dualpipev --pp 2 --micro 6 -o exported_v.json
exports jaxpp exported_v.json
"$tool" generate hanayo --pp 4 --micro 8 --waves 2 -o exported_waves.json
exports jaxpp exported_waves.json
exports megatron exported_1f1b.json
exports megatron exported_1f1b.json --model $gemma_model --partition best
for options in "" "--group-size 8" "--chunks 3" "--overlap"; do
  file="exported_loop${options// /}.json"
  "$tool" generate interleaved_1f1b --pp 4 --micro 8 $options -o "$file"
  exports megatron "$file"
  [ "$options" = --overlap ] || exports megatron "$file" --model with_mtp.json
done

# Golden files.
golden_export() {  # golden file, file of the folder, options
  local expected=$golden/$1 file=$2
  shift 2
  rm -rf exported
  "$tool" export "$@" -o exported >/dev/null 2>export_notes
  check "export: $*" diff "$expected" "exported/$file"
}
golden_export torchtitan_zbv_pp2_m4.py torchtitan_pipeline.py --family zbv --pp 2 --micro 4 --for torchtitan --model $gemma_model
golden_export automodel_dualpipev_pp2_m4.yaml pipeline.yaml --family dualpipev --pp 2 --micro 4 --for automodel --model $gemma_model
golden_export megatron_interleaved_pp4_m8.sh megatron.sh --family interleaved_1f1b --pp 4 --micro 8 --for megatron --model with_mtp.json
golden_export jaxpp_dualpipev_pp2_m4.py jaxpp_schedule.py --family dualpipev --pp 2 --micro 4 --for jaxpp
rm -rf exported
"$tool" export --family dualpipev --pp 2 --micro 4 --for torchtitan -o exported >/dev/null 2>export_notes
check "export: the CSV is that of generate" cmp exported/schedule.csv <("$tool" generate dualpipev --pp 2 --micro 4 --format csv)

# Mutants, each of which the reader refuses.
mutant() {  # trainer, file, sed expression
  local folder="mutant_$((++exports_made))"
  cp -r exported $folder
  sed -i "$3" "$folder/$2"
  check "export: the mutant $3 differs" [ "$(cksum <"$folder/$2")" != "$(cksum <"exported/$2")" ]
  cp exported.json $folder.json
  to_refuse+=("$1" $folder $folder.json)
}
"$tool" generate dualpipev --pp 2 --micro 4 -o exported.json
rm -rf exported
"$tool" export exported.json --for torchtitan --model $gemma_model -o exported >/dev/null 2>export_notes
for change in s/ZBVZeroBubble/Interleaved1F1B/ s/ZBVZeroBubble/1F1B/ s/ZBVZeroBubble/ZBV/ 's/microbatches = 4/microbatches = 5/' \
  's/degree = 2/degree = 4/' 's/, "layers.3"//' 's/"norm", //' 's/per_stage = None/per_stage = 8/'; do
  mutant torchtitan torchtitan_pipeline.py "$change"
done
for change in '1s/0F0/0F1/' '1s/0F0,0F1/0F1,0F0/' 's/OVERLAP_F_B//' 's/0F0/0R0/' 's/0F0/2F0/' 2d; do
  mutant torchtitan schedule.csv "$change"
done
rm -r exported
"$tool" export exported.json --for automodel --model $gemma_model -o exported >/dev/null 2>export_notes
for change in s/ZBVZeroBubble/DualPipeV/ s/ZBVZeroBubble/Interleaved1F1B/ 's/batch_size: 4/batch_size: 1/' 's/, "model.rotary_emb"//' \
  's/"model.embed_tokens", //' 's/layers_per_stage/layer_per_stage/'; do
  mutant automodel pipeline.yaml "$change"
done
"$tool" generate interleaved_1f1b --pp 4 --micro 8 -o exported.json
rm -r exported
"$tool" export exported.json --for megatron --model with_mtp.json -o exported >/dev/null 2>export_notes
for change in 's/per-virtual-pipeline-stage 4/per-virtual-pipeline-stage 5/' \
  's/per-virtual-pipeline-stage 4/per-virtual-pipeline-stage 8/' 's/num-layers 4/num-layers 5/' 's/mtp-num-layers 2/mtp-num-layers 1/' \
  's/"E/"tE/' 's/parallel-size 4/parallel-size 2/' 's/PIPELINE_ARGS=(/PIPELINE_ARGS=(\n  --overlap-moe-expert-parallel-comm/'; do
  mutant megatron megatron.sh "$change"
done
"$tool" generate dualpipev --pp 2 --micro 4 -o exported.json
rm -r exported
"$tool" export exported.json --for jaxpp -o exported >/dev/null 2>export_notes
for change in 's/RANK_OF_STAGE = (0, 1, 1, 0)/RANK_OF_STAGE = (0, 1, 0, 1)/' 's/PARTIAL = True/PARTIAL = False/' 's/0F0 0F1/0F1 0F0/' \
  's/0I2 0W2/0W2 0I2/' 's/MICRO_BATCHES = 4/MICRO_BATCHES = 5/' 's/TaskType.BWD_I, TaskType.BWD_W/TaskType.BWD/'; do
  mutant jaxpp jaxpp_schedule.py "$change"
done

check "export: the trainers refuse mutants" python3 "$export_reader" --refused "${to_refuse[@]}"

# Plans and divisions, with their partition.
"$tool" plan --model $gemma_model --pp 2 --micro 4 --placement vee --pairs none --evaluations 500 --format json -o planned_vee.json
python3 -c 'import json; json.dump(json.load(open("planned_vee.json"))["schedule"], open("planned_vee_schedule.json", "w"))'
rm -rf exported
check "export: a plan" "$tool" export planned_vee.json --for torchtitan --model $gemma_model -o exported >/dev/null 2>export_notes
check "export: the trainers read what is written for them" \
  python3 "$export_reader" "${to_read[@]}" torchtitan exported planned_vee_schedule.json
check "export: with the plan's partition" python3 - <<<'
import json
spec = {"__file__": "x"}
exec(open("exported/torchtitan_pipeline.py").read(), spec)
class parallelism: pass
spec["set_pipeline"](parallelism)
layers = [len([m for m in part if m not in ("tok_embeddings", "norm")]) for part in parallelism.module_fqns_per_model_part]
assert layers == json.load(open("planned_vee.json"))["partition"], layers'
"$tool" divide --model $gemma_model --family 1f1b --pp 4 --micro 8 --evaluations 500 --format json -o divided.json
check "export: a division has its layout" grep -qF "$("$tool" divide --model $gemma_model --family 1f1b --pp 4 --micro 8 --evaluations 500 --format layout)" \
  <("$tool" export divided.json --for megatron --model $gemma_model)
check "export: a division for jaxpp, which has no --model" grep -qx "LAYERS_OF_STAGE = ($(
  python3 -c 'import json; print(*json.load(open("divided.json"))["partition"], sep=", ")'))  # .*" <("$tool" export divided.json --for jaxpp)
refused 'divided.json has layers per stage; expected --model with the model that they are of' export divided.json --for megatron
refused 'divided.json has layers per stage, and --partition names others; expected one of them' \
  export divided.json --for megatron --model $gemma_model --partition uniform
refused 'a partition of 33 layers; the model has 8' export divided.json --for megatron --model with_mtp.json
sed 's/"partition": \[/"partition": [-/' divided.json >negative.json
expect "export: a partition that is negative" 2 '' 'pipesched: negative.json: .*~' "$tool" export negative.json --for megatron --model $gemma_model
"$tool" plan --pp 2 --micro 4 --pareto --evaluations 200 --format json -o front.json
refused 'front.json: a front of 6 plans; expected one, of a single limit' export front.json --for jaxpp

# Folders and words.
rm -rf exported
exactly "export: names of the files" 0 "$(printf 'exported/deep/schedule.csv\nexported/deep/torchtitan_pipeline.py')" "" \
  "$tool" export --family 1f1b --pp 2 --micro 4 --for torchtitan -o exported/deep
exactly "export: the same once more" 0 "$(printf 'exported/deep/schedule.csv\nexported/deep/torchtitan_pipeline.py')" "" \
  "$tool" export --family 1f1b --pp 2 --micro 4 --for torchtitan -o exported/deep
cp -r exported/deep before
refused 'exported/deep/schedule.csv is there with another text; expected a folder without it' \
  export --family gpipe --pp 2 --micro 4 --for torchtitan -o exported/deep
check "export: nothing was replaced" diff -r before exported/deep
rm -r before
echo >a_file
for folder in a_file a_file/ a_file/below/deep; do
  refused 'a_file is not a folder; expected a folder, or a name that is not taken' export --family 1f1b --pp 2 --micro 4 --for jaxpp -o "$folder"
done
refused '--output takes the name of a folder, or -; got ""' export --family 1f1b --pp 2 --micro 4 --for jaxpp -o ''
refused 'export needs --for with torchtitan, automodel, megatron or jaxpp' export --family 1f1b --pp 2 --micro 4
refused '--for takes torchtitan, automodel, megatron or jaxpp; got "torchtitn"; did you mean torchtitan?' export --family 1f1b --pp 2 --micro 4 --for torchtitn
refused 'export takes a file, or --family with --pp and --micro' export --for jaxpp
refused 'export takes a file, or --family with --pp and --micro' export exported.json --family 1f1b --for jaxpp
refused '--pp goes with --family; the schedule of exported.json has its own sizes' export exported.json --pp 2 --for jaxpp
refused 'costs go with --family; the schedule of exported.json has its own order' export exported.json --forward 2 --for jaxpp
refused 'the order of 1f1b does not depend on costs; expected no costs' export --family 1f1b --pp 2 --micro 4 --forward 2 --for jaxpp
refused '--model is for torchtitan, automodel and megatron; a model for jaxpp marks its stages itself' \
  export --family 1f1b --pp 2 --micro 4 --for jaxpp --model with_mtp.json
refused 'torchtitan places stages in a loop, or in a V of 2 stages per rank; got a wave placement of 4 stages per rank' \
  export --family hanayo --waves 2 --pp 2 --micro 4 --for torchtitan
refused 'Megatron-LM overlaps F and B with at most 1 layer of multi-token prediction; got 2' \
  export --family interleaved_1f1b --overlap --pp 4 --micro 8 --for megatron --model with_mtp.json
refused 'torchtitan has no pipeline with multi-token prediction; layer 5 of the model is of the kind mtp' \
  export --family 1f1b --pp 2 --micro 4 --for torchtitan --model with_mtp.json
refused 'layout: layer 5 is an m on stage 2; Megatron-LM takes m on the last stage of a rank, 4 to 7' \
  export --family interleaved_1f1b --pp 4 --micro 8 --for megatron --model with_mtp.json --partition 2,1,3,1,1,0,0,0
expect "export: a broken schedule" 1 'rank 0, cell 1: duplicate: .*' '' "$tool" export broken.json --for jaxpp
expect "export: notes of overlap" 0 '.*--overlap-moe-expert-parallel-comm~.*' 'pipesched: overlap in Megatron-LM needs expert parallelism, .*~' \
  "$tool" export --family interleaved_1f1b --pp 2 --micro 4 --overlap --for megatron
rm -rf exported_* mutant_*

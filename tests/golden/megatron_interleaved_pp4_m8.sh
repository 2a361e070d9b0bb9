# interleaved_1f1b: 4 ranks, 8 stages, 8 micro-batches; written by pipesched, for Megatron-LM.
#   . megatron.sh
#   ... pretrain_gpt.py "${PIPELINE_ARGS[@]}" --global-batch-size $((8 * MICRO_BATCH_SIZE * DATA_PARALLEL_SIZE))
PIPELINE_ARGS=(
  --pipeline-model-parallel-size 4
  --microbatch-group-size-per-virtual-pipeline-stage 4
  --num-layers 4
  --mtp-num-layers 2
  --pipeline-model-parallel-layout "Et|t|t|t||||mmL"
)

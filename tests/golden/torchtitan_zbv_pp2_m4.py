# zbv: 2 ranks, 4 stages, 4 micro-batches; written by pipesched, for torchtitan.
#   from torchtitan_pipeline import set_pipeline
#   set_pipeline(config.parallelism)
from pathlib import Path


def set_pipeline(parallelism):
    parallelism.pipeline_parallel_degree = 2
    parallelism.pipeline_parallel_schedule = "ZBVZeroBubble"  # places the stages; the order is that of the CSV
    parallelism.pipeline_parallel_schedule_csv = str(Path(__file__).with_name("schedule.csv"))
    parallelism.num_pp_microbatches = 4
    parallelism.pipeline_parallel_layers_per_stage = None
    parallelism.module_fqns_per_model_part = [
        ["tok_embeddings", "layers.0", "layers.1", "layers.2", "layers.3", "layers.4", "layers.5", "layers.6", "layers.7"],
        ["layers.8", "layers.9", "layers.10", "layers.11", "layers.12", "layers.13", "layers.14", "layers.15"],
        ["layers.16", "layers.17", "layers.18", "layers.19", "layers.20", "layers.21", "layers.22", "layers.23"],
        ["layers.24", "layers.25", "layers.26", "layers.27", "layers.28", "layers.29", "layers.30", "layers.31", "norm", "lm_head"],
    ]

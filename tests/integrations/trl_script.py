"""A fine-tuning with TRL that reports to MLflow: ``trl_script.py MODEL``."""

import sys

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

rows = [{"text": f"The lamp number {number} can be repaired."} for number in range(16)]
settings = SFTConfig(
    output_dir="out",
    run_name="sft",
    report_to="mlflow",
    max_steps=4,
    max_length=32,
    per_device_train_batch_size=2,
    logging_steps=1,
    save_strategy="no",
    seed=3,
    use_cpu=True,
    bf16=False,
    disable_tqdm=True,
)
trainer = SFTTrainer(model=sys.argv[1], args=settings, train_dataset=Dataset.from_list(rows))
trainer.train()
trainer.save_state()

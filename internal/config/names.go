package config

import "strings"

// otherNames are the keys by the names that PEFT, transformers' TrainingArguments and trl give them.
var otherNames = map[string]string{
	"base_model":                      "model",
	"base_model_name_or_path":         "model",
	"model_name_or_path":              "model",
	"num_virtual_tokens":              "prompt.tokens",
	"virtual_tokens":                  "prompt.tokens",
	"prompt_tuning_init":              "prompt.init",
	"prompt_tuning_init_text":         "prompt.text",
	"init_text":                       "prompt.text",
	"encoder_reparameterization_type": "train.reparametrise",
	"encoder_hidden_size":             "train.width",
	"train_file":                      "data.train",
	"validation_file":                 "data.valid",
	"dataset_text_field":              "data.input",
	"max_length":                      "data.max_tokens",
	"max_seq_length":                  "data.max_tokens",
	"lr":                              "train.learning_rate",
	"lr_scheduler_type":               "train.schedule",
	"scheduler":                       "train.schedule",
	"num_epochs":                      "train.epochs",
	"num_train_epochs":                "train.epochs",
	"max_steps":                       "train.steps",
	"per_device_train_batch_size":     "train.batch_size",
	"optim":                           "train.optimizer",
	"adam_beta1":                      "train.betas",
	"adam_beta2":                      "train.betas",
	"warmup_ratio":                    "train.warmup",
	"warmup_steps":                    "train.warmup",
	"max_grad_norm":                   "train.clip_norm",
	"gradient_checkpointing":          "train.recompute",
	"eval_steps":                      "train.eval_every",
	"early_stopping_patience":         "train.patience",
	"early_stopping_threshold":        "train.min_gain",
	"output_dir":                      "output.dir",
	"logging_dir":                     "output.dir",
	"metric_for_best_model":           "train.best",
	"apply_chat_template":             "data.chat",
}

// otherWays are what stands for names of PEFT and of TrainingArguments that no key has.
var otherWays = map[string]string{
	"gradient_accumulation_steps": "train.batch_size is all rows of a step; memory does not grow with it",
	"per_device_eval_batch_size":  "train.micro_batch_tokens limits evaluations, too",
	"bf16":                        "the flag --compute bf16 does that",
	"fp16":                        "the flag --compute bf16 is the nearest",
	"tokenizer_name_or_path":      "the tokenizer is the model's own",
	"load_best_model_at_end":      "the prompt that is saved is always the best one, by train.best",
	"save_steps":                  "the state is saved at each evaluation and at least every 30 seconds",
	"logging_steps":               "every step is in events.jsonl",
	"peft_type":                   "what is trained is always a soft prompt",
	"task_type":                   "the model is always a causal language model",
}

// OtherWay returns what stands for a name that other programs have and no key has, with dashes for
// underscores too; "" for any other name.
func OtherWay(name string) string { return otherWays[strings.ReplaceAll(name, "-", "_")] }

// KeyNamed returns the dotted key that name means: the last part of a key, with dashes for underscores
// too, or what other programs call it. It returns "" if there is none.
func KeyNamed(name string) string {
	name = strings.ReplaceAll(name, "-", "_")
	if key := otherNames[name]; key != "" {
		return key
	}
	for _, k := range Keys() {
		if k[strings.LastIndexByte(k, '.')+1:] == name {
			return k
		}
	}
	return ""
}

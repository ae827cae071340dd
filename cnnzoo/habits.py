"""What users of other libraries type, and what to do here instead. A leaf that every room may import."""

_WEIGHTS = "pretrained=True, a tag of cnnzoo.list_weights(name), a file or a run folder"
_PREPARE = "preprocessing(net or name), which turns pictures into what the weights want"
_ERRORS = "cnnzoo.evaluate(run), cnnzoo.judge(run), which has a row for each image, and the run's report.html"
_MAPS = "create(name, features_only=True), which gives every stage's maps"

INSTEAD = {  # by the name elsewhere
    # of functions
    **dict.fromkeys(("create_model", "get_model", "build_model"), "cnnzoo.create(name, pretrained)"),
    "model_info": "cnnzoo.info(name)",
    "is_model": "name in cnnzoo.list_models()",
    **dict.fromkeys(("list_pretrained", "get_weight", "get_model_weights"), "cnnzoo.list_weights(pattern)"),
    **dict.fromkeys(("load_model", "load_learner"), "cnnzoo.load(run_or_file)"),
    **dict.fromkeys(("load_checkpoint", "load_state_dict"), "cnnzoo.create(name, pretrained=FILE)"),
    **dict.fromkeys(("fit", "train_model"), "cnnzoo.train(config), or cnnzoo.finetune(folder)"),
    **dict.fromkeys(("show_batch", "browse_dataset"), "cnnzoo.browse(config)"),
    **dict.fromkeys(
        ("ImageFolder", "ImageDataLoaders", "create_dataset", "create_loader", "image_dataset_from_directory"),
        "a folder's name wherever data is asked for",
    ),
    "ImageDataGenerator": "a folder's name wherever data is asked for, and the keys of augment",
    "EarlyStopping": "the key train.patience; a run keeps its best weights",
    **dict.fromkeys(("save", "save_model", "ModelCheckpoint"), "nothing: a run folder holds the best weights"),
    "load_weights": "cnnzoo.create(name, pretrained=FILE)",
    **dict.fromkeys(("average_checkpoints", "avg_checkpoints"), "cnnzoo.soup(runs)"),
    **dict.fromkeys(("export_onnx", "to_onnx", "onnx_export"), "cnnzoo.export(run, 'net.onnx')"),
    **dict.fromkeys(("set_seed", "seed_everything", "set_random_seed"), "the key train.seed"),
    **dict.fromkeys(("GradCAM", "GradCam", "gradcam"), "cnnzoo.visualize.gradcam(net, photos)"),
    **dict.fromkeys(("create_transform", "resolve_data_config", "resolve_model_data_config"), f"cnnzoo.{_PREPARE}"),
    **dict.fromkeys(("transforms", "transform_for"), f"cnnzoo.{_PREPARE}"),
    "create_feature_extractor": f"cnnzoo.{_MAPS}",
    **dict.fromkeys(
        ("vision_learner", "cnn_learner", "Learner", "fine_tune", "fit_one_cycle"), "cnnzoo.finetune(folder, model)"
    ),
    **dict.fromkeys(("freeze", "freeze_to", "unfreeze"), "mode='head' or mode='full' of cnnzoo.finetune(folder)"),
    "tta": "cnnzoo.predict(run, photos, mirror=True)",
    **dict.fromkeys(("ClassificationInterpretation", "Interpretation", "show_results", "confusion_matrix"), _ERRORS),
    **dict.fromkeys(("top_losses", "plot_top_losses", "plot_confusion_matrix"), _ERRORS),
    "lr_find": "cnnzoo.finetune(folder, model, lr='find')",
    **dict.fromkeys(("preprocess_input", "decode_predictions"), "cnnzoo.predict(net or run, photos), which does both"),
    "verify_images": "cnnzoo.check(folder)",
    # of arguments
    **dict.fromkeys(("checkpoint_path", "weights", "pretrained_cfg_overlay", "strict"), _WEIGHTS),
    "pretrained_cfg": f"{_WEIGHTS}; and cnnzoo.{_PREPARE}",
    "cache_dir": "$CNNZOO_WEIGHTS, the folder where weights lie",
    **dict.fromkeys(("scriptable", "exportable"), "cnnzoo.export(net, out)"),
    **dict.fromkeys(("grad_checkpointing", "gradient_checkpointing"), "net.set_grad_checkpointing()"),
    **dict.fromkeys(("device", "dtype"), ".to(…) of the net"),
    **dict.fromkeys(("dropout", "dropout_rate"), "drop_rate"),
    "include_top": "num_classes=0",
    **dict.fromkeys(("n_out", "num_labels"), "num_classes"),
    **dict.fromkeys(("n_in", "in_channels"), "in_chans"),
    "pooling": "global_pool",
}

TAGS = {  # of weights, as torchvision calls them
    "IMAGENET1K_V1": "tv_in1k",
    "IMAGENET1K_V2": "tv2_in1k",
    "IMAGENET1K_FEATURES": "features_in1k",
}
BEST = ("DEFAULT", "imagenet")  # torchvision's and Keras's words for the weights that True takes here

# By the name in others' scripts and calls, with hyphens: the key of a config or of a command; of several the first that
# a command has.
OPTIONS = {
    **dict.fromkeys(("opt", "optimizer", "optimiser"), "optim.name"),
    "wd": "optim.weight_decay",
    "clip-grad": "optim.clip_norm",
    **dict.fromkeys(("learning-rate", "lr-max"), "optim.lr"),
    **dict.fromkeys(("sched", "scheduler", "lr-scheduler"), "schedule.name"),
    "min-lr": "schedule.final",
    **dict.fromkeys(("decay-epochs", "lr-step-size"), "schedule.every"),
    "decay-rate": "schedule.gamma",
    **dict.fromkeys(("aa", "auto-augment"), "augment.policy"),
    **dict.fromkeys(("reprob", "random-erase"), "augment.erasing"),
    **dict.fromkeys(("hflip", "horizontal-flip"), "augment.flip"),
    **dict.fromkeys(("vflip", "vertical-flip"), "augment.flip_vertical"),
    "color-jitter": "augment.brightness",
    "mixup-alpha": "augment.mixup",
    "cutmix-alpha": "augment.cutmix",
    **dict.fromkeys(("ra-sampler", "ra-reps"), "augment.repeats"),
    **dict.fromkeys(("img-size", "image-size", "input-size", "val-crop-size"), "data.size"),
    **dict.fromkeys(("crop-pct", "val-resize-size"), "data.resize"),
    "train-crop-size": "data.train_size",
    "val-dir": "data.val_source",
    "validation-split": "data.val_fraction",
    "j": "data.workers",
    "bce-loss": "loss.name",
    "kd-model-name": "loss.teacher",
    **dict.fromkeys(("model-ema", "model-ema-decay"), "train.ema"),
    **dict.fromkeys(("amp", "amp-dtype", "fp16"), "train.precision"),
    "grad-accum-steps": "train.accumulate",
    **dict.fromkeys(("b", "bs"), "train.batch_size"),
    **dict.fromkeys(("class-weight", "class-weights"), "train.balance"),
    "early-stopping": "train.patience",
    **dict.fromkeys(("freeze", "freeze-backbone"), "mode or train.phases"),
    **dict.fromkeys(("log-wandb", "wandb", "tensorboard"), "train.loggers"),
    "seed": "train.seed",
    "tta": "mirror or crops",
    **dict.fromkeys(("threshold", "confidence"), "min-confidence"),
    "arch": "model.name",
    "model-kwargs": "model.args",
    **dict.fromkeys(("weights", "initial-checkpoint"), "model.pretrained"),
    **dict.fromkeys(("drop", "dropout"), "model.drop_rate"),
    **dict.fromkeys(("out", "output", "output-dir", "experiment"), "run"),
}

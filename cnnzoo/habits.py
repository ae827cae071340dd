"""What users of timm, torchvision and Keras type, and what to do here instead. A leaf that every room may import."""

_WEIGHTS = "pretrained=True, a tag of cnnzoo.list_weights(name), a file or a run folder"
_PREPARE = "preprocessing(net or name), which turns pictures into what the weights want"
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
        ("ImageFolder", "ImageDataLoaders", "create_dataset", "create_loader"),
        "a folder's name wherever data is asked for",
    ),
    **dict.fromkeys(("create_transform", "resolve_data_config", "resolve_model_data_config"), f"cnnzoo.{_PREPARE}"),
    **dict.fromkeys(("transforms", "transform_for"), f"cnnzoo.{_PREPARE}"),
    "create_feature_extractor": f"cnnzoo.{_MAPS}",
    **dict.fromkeys(("vision_learner", "cnn_learner", "fine_tune"), "cnnzoo.finetune(folder, model)"),
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
}

TAGS = {  # of weights, as torchvision calls them
    "IMAGENET1K_V1": "tv_in1k",
    "IMAGENET1K_V2": "tv2_in1k",
    "IMAGENET1K_FEATURES": "features_in1k",
}

OPTIONS = {  # of training, by the name in timm's and torchvision's scripts: the key of a config
    "opt": "optim.name",
    "wd": "optim.weight_decay",
    "clip-grad": "optim.clip_norm",
    **dict.fromkeys(("learning_rate", "learning-rate"), "optim.lr"),
    **dict.fromkeys(("sched", "lr-scheduler"), "schedule.name"),
    **dict.fromkeys(("aa", "auto-augment"), "augment.policy"),
    **dict.fromkeys(("reprob", "random-erase"), "augment.erasing"),
    "bce-loss": "loss.name",
    "kd-model-name": "loss.teacher",
    "model-ema": "train.ema",
    **dict.fromkeys(("amp", "amp-dtype"), "train.precision"),
    "grad-accum-steps": "train.accumulate",
    "arch": "model.name",
    **dict.fromkeys(("out", "output", "output-dir", "output_dir"), "run"),
}

"""`train plan`: what the training of a recipe takes, from its parent's config.json alone."""

from argparse import Namespace

from polyclinic.commands import emit


def cmd_train_plan(arguments: Namespace) -> int:
    """Print what training the mixture of a recipe takes; nothing is loaded, nothing written."""
    from polyclinic.journey import finished_base
    from polyclinic.moe.blueprint import dense_config
    from polyclinic.recipe import load_recipe
    from polyclinic.train.base import scratch_config
    from polyclinic.train.memory import shape_of
    from polyclinic.train.plan import Hardware, lengthened, plan
    from polyclinic.train.plan_lines import as_json, lines
    from polyclinic.upcycle.forecast import config_of, forecast
    from polyclinic.upcycle.plan import check_routing

    recipe = load_recipe(arguments.recipe, arguments.set)
    check_routing(recipe.upcycle, recipe.train.routing)
    base, pack_tokens = recipe.base, recipe.corpus.pack_tokens
    if base.from_scratch is None:
        where = base.checkpoint or str(finished_base(str(base.run)))
        raw, source = config_of(where)
    else:
        where, source = str(arguments.recipe), "a base trained by this recipe"
        raw = scratch_config(base.from_scratch, base.from_scratch.vocab_size, pack_tokens).to_dict()
    shape = shape_of(dense_config(raw, where), forecast(raw, where, recipe.upcycle), recipe.upcycle)
    settings = recipe.train if arguments.tokens is None else lengthened(recipe.train, arguments.tokens)
    hardware = Hardware(tuple(arguments.gpus), arguments.gpu_memory, arguments.tflops, arguments.mfu)
    made = plan(shape, settings, pack_tokens, hardware)
    return emit(arguments, as_json(made, source), lines(made, source))

"""What commands of the corpus stage do: values in from the grammar, lines or JSON out."""

from argparse import Namespace

from polyclinic.commands import emit


def cmd_corpus_audit(arguments: Namespace) -> int:
    """Audit translations that lie beside their sources, and learn from them if asked."""
    from polyclinic.corpus.glossary import Glossary, read
    from polyclinic.corpus.norms import read_norms
    from polyclinic.corpus.parallel import audited, lines, parallel

    pairs = parallel(arguments.source, arguments.target, arguments.only)
    glossary = read(arguments.glossary) if arguments.glossary else Glossary(())
    if arguments.learn is not None:
        from polyclinic.corpus.norms import learn, write_norms

        learned = {key: learn(found, glossary) for key, found in pairs.items()}
        write_norms(arguments.learn, learned)
        return emit(arguments, {"norms": str(arguments.learn)}, [f"norms    {arguments.learn}"])
    norms = read_norms(arguments.norms) if arguments.norms else {}
    found = audited(pairs, glossary, norms, arguments.reliability)
    return emit(arguments, found, lines(found))

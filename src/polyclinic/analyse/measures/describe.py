"""x."""
import time
from polyclinic.analyse.measures.information import language_information, token_information
def describe(tally, families, shuffles, seed):
    for every in (False,):
        a=time.time(); language_information(tally, every, shuffles, seed); b=time.time(); r=token_information(tally, every, shuffles, seed)
        print(every, b-a, time.time()-b, {k: v.tokens for k,v in r.items()})

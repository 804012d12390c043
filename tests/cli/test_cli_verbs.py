"""Every verb, on real data, for people and for programs."""

from __future__ import annotations


def test_play(command, recorded, release, distilled, student, tmp_path):
    print(recorded)
    print(distilled)
    for words in (["validate", release], ["show", release], ["validate", release, "--json"],["show", release, "--json"], ["reconstruct", release, "--set", "iterations=20","--set","batch=100", "--count", "40", "--out", tmp_path/"a.safetensors"],
       ["evaluate", student, "--data", "digits:test", "--bundle", release],["evaluate", student, "--data", "digits:test", "--bundle", release, "--json"], ["evaluate", student, "--data", "digits:test", "--scale","1/255"]):
        o = command(*words)
        print(words, o.code); print(o.out); print("STDERR", o.err)

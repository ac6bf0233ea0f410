"""Wrong results by the thousand: the verifier refuses each that a linker would take for another
program, or would not take at all.

Fields of right results are changed (`mutants`), and bugs are put into the engine (`bugs`); what the
verifier lets through is judged by LLVM's linkers (`judge`).
"""

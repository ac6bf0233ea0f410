"""What several libraries have in common, so that one copy of it serves them all.

joined programs -> which atoms are equal -> which of them may be one -> programs to be written
"""

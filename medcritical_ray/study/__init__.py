"""The study: what self-correction adds, shown by arms that share a student of stage 1 and differ in what they train on.

The arms are those that the method must be compared with to mean anything: from the same student, on the same questions,
with the same limit of training examples. Where the student corrects, pairs that keep its corrector up count against
that limit, too: the others have none to keep up, and may take more pairs of their source.
"""

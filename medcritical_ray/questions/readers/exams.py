"""Exams by the names of their columns, as their makers publish them."""

from medcritical_ray.questions.readers.columns import Columns

EXAMS: dict[str, Columns] = {
    # CMExam (arXiv 2306.03030): the annotated test split has the five labels. Line breaks are real ones in some
    # editions, the two characters \\ and n in others.
    "cmexam": Columns(
        stem="Question",
        options=("Options",),
        key="Answer",
        explanation="Explanation",
        labels=("Disease Group", "Area of Competency", "Clinical Department", "Medical Discipline", "Difficulty level"),
        has_escaped_breaks=True,
    ),
    # MedQA (arXiv 2009.13081): US with five or four options, mainland China, Taiwan. meta_info is the exam's step.
    "medqa": Columns(stem="question", options=("options",), key="answer_idx", labels=("meta_info",)),
    # MedMCQA (arXiv 2203.14371): cop counts from 1 in the authors' files, from 0 on the Hugging Face Hub.
    "medmcqa": Columns(
        stem="question",
        options=("opa", "opb", "opc", "opd"),
        key="cop",
        explanation="exp",
        id="id",
        labels=("subject_name", "topic_name", "choice_type"),
        key_is_number=True,
    ),
    # MedXpertQA, text subset (arXiv 2501.18362): ten options, told again at the end of the stem.
    "medxpertqa": Columns(
        stem="question",
        options=("options",),
        key="label",
        id="id",
        labels=("medical_task", "body_system", "question_type"),
        stem_end="\nAnswer Choices:",
    ),
    # CMB-Exam (arXiv 2308.08833): up to six options, unused letters with empty texts; several letters may be right.
    "cmb": Columns(
        stem="question",
        options=("option",),
        key="answer",
        explanation="explanation",
        labels=("exam_type", "exam_class", "exam_subject", "question_type"),
    ),
}

"""Instructions by name: the self-correction messages of SCoRe (Kumar et al. 2024, arXiv 2409.12917, appendix)."""

INSTRUCTIONS = {
    "score_math": (
        "There might be an error in the solution above because of lack of understanding of the question. Please "
        "correct the error, if any, and rewrite the solution. Only output the final solution! At the end of the "
        'Solution, when you give your final answer, write it in the form "Final Answer: The final answer is $answer$. '
        'I hope it is correct."'
    ),
    "score_code": (
        "There might be an error in the code above because of lack of understanding of the question. Please correct "
        "the error, if any, and rewrite the solution. Only output the final correct Python program!"
    ),
}

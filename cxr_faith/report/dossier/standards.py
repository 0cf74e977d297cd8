"""The documents that a dossier answers: their items in our words, what a run says to each, and what none can know.

The words are not those of the documents; read the documents themselves before you submit anything.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One item of a document."""

    name: str
    """As the document names or numbers it."""
    asks: str
    """What it asks for, in our words."""
    topics: tuple[str, ...]
    """Keys of `topics.TOPICS`, or `compared` and `plan`, whose figures answer part of it."""
    blanks: tuple[str, ...]
    """What no run can know."""


@dataclass(frozen=True)
class Standard:
    """A document, or the part of it that explanations concern."""

    title: str
    """Its name."""
    about: str
    """Which part of it is here."""
    items: tuple[Item, ...]
    """In the document's order."""


CLAIM = Standard(
    "CLAIM 2024",
    "Checklist for Artificial Intelligence in Medical Imaging, update of 2024: the items on the model's evaluation "
    "that explanations concern.",
    (
        Item(
            "Data sources and testing data",
            "Where the tested studies come from, and how many were tested.",
            ("data", "plan"),
            ("origin, period and sites of the studies", "how the sample size was chosen before the study"),
        ),
        Item(
            "Reference standard",
            "What the answers are compared with, and who made it.",
            (),
            ("definition of the reference, its annotators and their agreement",),
        ),
        Item(
            "Model and software",
            "The model in enough detail to be obtained again, and the software.",
            ("model", "machine"),
            ("training data of the model, and whether they overlap with the tested studies",),
        ),
        Item("Performance metrics", "How well the model answers.", ("answers", "calibration"), ()),
        Item(
            "Uncertainty and significance",
            "Intervals and tests, and for which unit.",
            ("explanations", "compared"),
            ("hypotheses that were stated before the study",),
        ),
        Item(
            "Robustness or sensitivity analysis",
            "Whether results hold under changes of input and assumptions.",
            ("robustness", "sanity"),
            (),
        ),
        Item(
            "Explainability or interpretability",
            "Which methods explain the outputs, and how the explanations were validated.",
            ("protocol", "explanations", "localization", "sanity", "doctor"),
            ("how readers are shown the maps, and what they do with them",),
        ),
        Item(
            "Internal and external testing",
            "Results on data like the training data, and on others.",
            ("answers", "compared"),
            ("which of the runs is internal and which external",),
        ),
        Item("Failure analysis", "Where the model is wrong.", ("answers", "groups"), ("review of wrong answers",)),
        Item("Limitations", "What limits the conclusions.", ("limits",), ("limits of the study's design",)),
    ),
)

MODEL_CARD = Standard(
    "Model card: evaluation",
    "The sections of a model card that an evaluation fills.",
    (
        Item("Metrics", "What was measured, and why.", ("protocol",), ("why these metrics fit the intended use",)),
        Item("Evaluation data", "Which data, and how they were prepared.", ("data",), ("why these data were chosen",)),
        Item(
            "Quantitative analyses",
            "Results for all data and for groups.",
            ("answers", "calibration", "explanations", "groups"),
            ("results for groups whose attributes the data lack",),
        ),
        Item("Caveats", "What a user must know.", ("limits",), ("ethical considerations, recommendations for use",)),
    ),
)

AI_ACT = Standard(
    "EU AI Act (Regulation 2024/1689): Annex IV (2) and (3), Article 13",
    "Technical documentation of a high-risk system, and information for those who deploy it.",
    (
        Item(
            "Annex IV (2)(a), (b)",
            "How the system was made, what it optimizes, and the choices of its design.",
            ("model",),
            ("steps of the development, third-party models and how they were adapted", "trade-offs of the design"),
        ),
        Item("Annex IV (2)(c)", "Architecture and computing resources.", ("machine", "plan"), ("system architecture",)),
        Item(
            "Annex IV (2)(d)",
            "Data requirements: origin, selection, labels and cleaning.",
            ("data",),
            ("datasheets of the training data", "labelling and cleaning"),
        ),
        Item(
            "Annex IV (2)(e)",
            "Human oversight, and what helps people to interpret outputs.",
            ("explanations", "sanity"),
            ("assessment of the oversight that is needed",),
        ),
        Item("Annex IV (2)(f)", "Changes that are planned in advance.", (), ("planned changes of the system",)),
        Item(
            "Annex IV (2)(g)",
            "Validation and testing: data, metrics for accuracy, robustness and unequal effects, and reports.",
            ("protocol", "answers", "calibration", "groups", "robustness", "doctor", "compared"),
            ("date and signature of those responsible for the tests",),
        ),
        Item("Annex IV (2)(h)", "Cybersecurity.", (), ("cybersecurity measures of the deployed system",)),
        Item(
            "Annex IV (3)",
            "Capabilities and limits: accuracy, also for groups, foreseeable unintended outcomes, input data.",
            ("answers", "groups", "limits"),
            ("foreseeable unintended outcomes and risks to health and rights", "specification of input data"),
        ),
        Item("Article 13 (3)(a)", "Who provides the system.", (), ("identity and contact of the provider",)),
        Item("Article 13 (3)(b)(i)", "Intended purpose.", (), ("intended purpose",)),
        Item(
            "Article 13 (3)(b)(ii), (iii)",
            "Accuracy, robustness and cybersecurity that can be expected, and known circumstances that change them.",
            ("answers", "calibration", "robustness", "limits"),
            ("circumstances of use that may lead to risks",),
        ),
        Item(
            "Article 13 (3)(b)(iv), (vii)",
            "What explains an output, and what lets deployers interpret it.",
            ("explanations", "localization", "sanity"),
            ("instructions for reading the maps",),
        ),
        Item("Article 13 (3)(b)(v)", "Performance for groups of persons.", ("groups",), ("intended groups",)),
        Item("Article 13 (3)(b)(vi)", "Input, training and testing data.", ("data",), ("training data",)),
        Item(
            "Article 13 (3)(c)-(f)",
            "Changes, oversight, resources with lifetime and maintenance, and logs.",
            ("machine",),
            ("planned changes", "measures of human oversight", "lifetime and maintenance", "how logs are kept"),
        ),
    ),
)

FDA = Standard(
    "Transparency for machine learning-enabled medical devices: guiding principles (FDA, Health Canada, MHRA, 2024)",
    "The six principles.",
    (
        Item("Who", "The audiences.", (), ("users, patients and others who need the information",)),
        Item("Why", "What transparency is for: safe use, risks, bias.", ("groups",), ("risks that it controls",)),
        Item(
            "What",
            "Intended use, performance, logic where it is known, and limits.",
            ("model", "data", "answers", "calibration", "explanations", "sanity", "limits"),
            ("intended use, workflow and regulatory status", "how outputs inform decisions"),
        ),
        Item("Where", "Where the information is placed.", (), ("place of this information in the user interface",)),
        Item("When", "When it is given.", (), ("when users are told, also of updates",)),
        Item("How", "How it is made to be understood.", (), ("tests with users that the information is understood",)),
    ),
)

STANDARDS = (CLAIM, MODEL_CARD, AI_ACT, FDA)

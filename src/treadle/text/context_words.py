"""Words that say what the number after them is, by kind and language: patterns, lower case, whole words."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.core.errors import UserError, nearest
from treadle.text.surroundings import LOOK_BACK, Context

LANGUAGES = ("en", "de", "fr", "es", "it")
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "credit_card": {
        "en": ("cards?", "cc", "visa", "mastercard", "amex"),
        "de": ("kreditkarten?", "kartennummer"),
        "fr": ("carte",),
        "es": ("tarjeta",),
        "it": ("carta di credito",),
    },
    "us_ssn": {"en": ("ssn", "social security", "soc sec", "social security (?:number|no)")},
    "date_of_birth": {
        "en": ("born", "birth", "birthda(?:y|te)", "dob", r"d\.o\.b\.?"),
        "de": ("geboren", "geburtsdatum", "geburtstag"),
        "fr": ("née? le", "naissance"),
        "es": ("nacid[oa]", "nacimiento"),
        "it": ("nat[oa] il", "nascita"),
    },
    "passport": {
        "en": ("passport",),
        "de": ("reisepass", "reisepassnummer"),
        "fr": ("passeport",),
        "es": ("pasaporte",),
        "it": ("passaporto",),
    },
    "driver_license": {
        "en": ("driv(?:er|ing)(?:'|\u2019|s){0,3} licen[cs]e", "driver'?s? id", "licen[cs]e no"),
        "de": ("führerschein", "führerscheinnummer"),
        "fr": ("permis de conduire",),
        "es": ("licencia de conducir", "permiso de conducir", "carnet de conducir"),
        "it": ("patente di guida", "patente"),
    },
    "national_id": {
        "en": ("national id", "national insurance", "tax id", "social insurance", "sin", "pesel", "bsn", "aadhaar"),
        "de": (
            "steuer-?id",
            "steuer-?identifikationsnummer",
            "idnr",
            "steuerliche identifikationsnummer",
            "burgerservicenummer",
        ),
        "fr": ("numéro de sécurité sociale", "sécu", "nir", "numéro fiscal", "nas"),
        "es": ("dni", "nie", "nif"),
        "it": ("codice fiscale",),
    },
    "medical_id": {
        "en": (
            "mrn",
            "medical records? (?:no|number|id|#)",
            "patient (?:no|number|id|#)",
            "health plan (?:no|number|id|#)",
            "(?:member|beneficiary|subscriber) (?:no|number|id|#)",
        ),
        "de": ("patientennummer", "patienten-?id"),
        "fr": ("numéro de patient", "dossier médical"),
        "es": ("historia clínica", "número de paciente", "tarjeta sanitaria"),
        "it": ("tessera sanitaria", "cartella clinica", "numero paziente"),
    },
    "medical_scheme": {
        "en": ("nhs(?: (?:no|number))?", "npi", "provider identifier"),
        "de": ("krankenversichertennummer", "versichertennummer", "kvnr", "krankenkasse"),
    },
    "account": {
        "en": ("acc(?:oun)?t ?(?:no|number|#|id)", "acct", "bank account", "routing(?: (?:no|number))?", "sort code"),
        "de": ("kontonummer", "konto-nr", "bankkonto"),
        "fr": ("numéro de compte", "compte bancaire"),
        "es": ("número de cuenta", "cuenta bancaria"),
        "it": ("numero di conto", "conto corrente"),
    },
    "vehicle_id": {
        "en": ("vin", "vehicle identification(?: number)?", "chassis(?: (?:no|number))?"),
        "de": ("fahrgestellnummer", "fin", "fahrzeug-?identifikationsnummer"),
        "fr": ("numéro de châssis", "numéro d'identification du véhicule"),
        "es": ("bastidor", "número de chasis"),
        "it": ("numero di telaio", "telaio"),
    },
    "phone": {
        "en": (
            "phones?",
            "tel",
            "telephones?",
            "call(?:s|ed|ing)?",
            "mobile?",
            "cell(?:phone|ular)?",
            "fax",
            "dial",
            "whatsapp",
            "reach (?:me|us|him|her|them)",
            "contact",
            "sms",
            "text (?:me|us)",
            "extension",
            "answering",
            "voicemail",
            "messages? (?:to|on|from|at)",
        ),
        "de": ("tel", "telefon", "handy", "mobil", "rufnummer", "fax"),
        "fr": ("tél", "tel", "téléphone", "fax"),
        "es": ("tel", "teléfono", "telefone", "móvil", "fax"),
        "it": ("tel", "telefono", "cellulare", "fax"),
    },
}


def context(kind: str, languages: Sequence[str] = LANGUAGES, window: int = LOOK_BACK) -> Context:
    """The words of one kind in these languages; ``UserError`` for a language there are no words of."""
    for language in languages:
        if language not in LANGUAGES:
            raise UserError(f"there are no context words in {language!r};{nearest(language, LANGUAGES)}")
    words = dict.fromkeys(word for language in languages for word in WORDS[kind].get(language, ()))
    return Context(*words, window=window)

"""LaTeX's mathematics as MathML: the part of it that the pages use. What is not known here is an error, not a guess."""

import re
from html import escape

TOKEN = re.compile(r"\\[a-zA-Z]+\*?|\\.|\s+|.", re.DOTALL)


def table(names: str, symbols: str) -> dict[str, str]:
    """Commands and what stands for each."""
    return dict(zip(names.split(), symbols, strict=True))


GREEK = table(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma varsigma tau upsilon "
    "phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell infty partial nabla hbar",
    "αβγδϵεζηθϑικλμνξπρσςτυϕφχψωΓΔΘΛΞΠΣΦΨΩℓ∞∂∇ℏ",
)
RELATIONS = table(
    "le leq ge geq ne neq approx sim simeq equiv propto in notin subset subseteq to rightarrow leftarrow mapsto Rightarrow "
    "Longrightarrow Leftrightarrow mid parallel ll gg perp triangleq colon",
    "≤≤≥≥≠≠≈∼≃≡∝∈∉⊂⊆→→←↦⇒⟹⇔∣∥≪≫⊥≜:",
)
BINARY = table("cdot times pm mp odot circ cup cap setminus wedge vee ast oplus otimes", "·×±∓⊙∘∪∩∖∧∨∗⊕⊗")
OTHERS = {"dots": "…", "ldots": "…", "cdots": "⋯", "top": "⊤", "forall": "∀", "exists": "∃", "prime": "′", "star": "⋆"}
LARGE = {"sum": "∑", "prod": "∏", "int": "∫", "bigcup": "⋃"}
LIMITS = {"max", "min", "lim", "sup", "inf", "argmax", "argmin"}
FUNCTIONS = {"log", "ln", "exp", "tanh", "sin", "cos", "tan", "det", "dim", "Pr", "arg", "gcd", "ker"}
DELIMITERS = {
    "langle": "⟨", "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "lvert": "|", "rvert": "|", "vert": "|",
    "lVert": "‖", "rVert": "‖", "Vert": "‖", "|": "‖", "{": "{", "}": "}", "lbrace": "{", "rbrace": "}",
}  # fmt: skip
ACCENTS = {"hat": "^", "widehat": "^", "tilde": "~", "widetilde": "~", "bar": "¯", "overline": "¯", "vec": "→", "dot": "˙", "ddot": "¨"}
SIGNS = {"-": "−", "*": "∗"}
SPACES = {",": 0.17, ":": 0.22, ";": 0.28, "!": -0.17, " ": 0.33, "quad": 1.0, "qquad": 2.0}
SIZES = {f"{name}{side}": size for size, name in enumerate(("big", "Big", "bigg", "Bigg"), 1) for side in ("", "l", "r")}
ALPHABETS = {"mathcal": (0x1D49C, 0x1D4B6, None), "mathbb": (0x1D538, 0x1D552, 0x1D7D8), "mathbf": (0x1D400, 0x1D41A, 0x1D7CE)}
HOLES = dict(zip("𝒝𝒠𝒡𝒣𝒤𝒧𝒨𝒭𝔺𝔿𝕅𝕇𝕈𝕉𝕑", "ℬℰℱℋℐℒℳℛℂℍℕℙℚℝℤ", strict=True))  # letters that Unicode has elsewhere


class UnknownLatex(ValueError):
    """What the converter does not know."""


def letter(character: str, alphabet: str) -> str:
    """A letter or digit of one of the alphabets of Unicode's mathematics."""
    upper, lower, digit = ALPHABETS[alphabet]
    if character.isdigit() and digit is not None:
        return chr(digit + int(character))
    styled = chr((upper if character.isupper() else lower) + ord(character.lower()) - ord("a"))
    return HOLES.get(styled, styled)


def space(width: float) -> str:
    """A space of so many em."""
    return f'<mspace width="{width}em"></mspace>'


class Reader:
    """Recursive descent through one formula."""

    def __init__(self, latex: str, display: bool) -> None:
        self.tokens, self.at, self.display = TOKEN.findall(latex.strip()), 0, display

    def peek(self) -> str:
        """The next token that is no white space; empty at the end."""
        while self.at < len(self.tokens) and self.tokens[self.at].isspace() and not self.tokens[self.at].startswith("\\"):
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        """The next token, passed."""
        token = self.peek()
        if not token:
            raise UnknownLatex("the formula ends too early")
        self.at += 1
        return token

    def raw(self) -> str:
        """The text of a group in braces, as it stands."""
        if self.take() != "{":
            raise UnknownLatex("expected a group in braces")
        depth, parts = 1, []
        while depth:
            if self.at >= len(self.tokens):
                raise UnknownLatex("a brace is not closed")
            token = self.tokens[self.at]
            self.at += 1
            depth += {"{": 1, "}": -1}.get(token, 0)
            parts.append(token)
        return "".join(parts[:-1])

    def row(self, *ends: str) -> str:
        """Everything up to one of the tokens `ends`, which is passed."""
        parts: list[str] = []
        while (token := self.peek()) not in ends:
            if not token:
                raise UnknownLatex(f"expected {' or '.join(ends)} before the formula's end")
            self.append(parts)
        self.end = self.take()
        return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"

    def argument(self) -> str:
        """A group in braces, or one token."""
        if self.peek() == "{":
            self.take()
            return self.row("}")
        return self.atom(single=True)

    def append(self, parts: list[str]) -> None:
        """Add the next atom, with a thin space before the name of a function that follows a factor."""
        token = self.peek()
        named = token.removeprefix("\\") in FUNCTIONS | LIMITS or token.startswith("\\operatorname")
        if named and parts and not parts[-1].startswith(("<mo", "<mspace")):
            parts.append(space(0.17))
        parts.append(self.scripted())

    def scripted(self) -> str:
        """An atom with what is above and below it."""
        start = self.peek()
        base, below, above = self.atom(), "", ""
        while (token := self.peek()) in ("_", "^", "'") and token:
            self.take()
            if token == "_":
                below = self.argument()
            elif token == "^":
                above = self.argument()
            else:
                base = f'<mrow>{base}<mo lspace="0" rspace="0">′</mo></mrow>'  # the glyph is a raised one already
        name = start.removeprefix("\\")
        if name in LIMITS or name in LARGE or start == "\\operatorname*":
            kind = ("munder", "mover", "munderover") if name != "int" else ("msub", "msup", "msubsup")
        else:
            kind = ("msub", "msup", "msubsup")
        if below and above:
            base = f"<{kind[2]}>{base}{below}{above}</{kind[2]}>"
        elif below or above:
            base = f"<{kind[1] if above else kind[0]}>{base}{below}{above}</{kind[1] if above else kind[0]}>"
        called = name in FUNCTIONS | LIMITS or start.startswith("\\operatorname")
        if called and self.peek() not in ("", "(", "[", "}", "&", ",", ")", "\\big", "\\Big", "\\left", "\\,", "\\;", "\\ ", "\\{"):
            base += space(0.17)
        return base

    def atom(self, single: bool = False) -> str:
        """One symbol, group or command; a run of digits is one number unless it is `single`."""
        token = self.take()
        if token == "{":
            return self.row("}")
        if token.isdigit():
            number = token
            while not single and re.match(r"\d|\.\d", "".join(self.tokens[self.at : self.at + 2])):
                number += self.tokens[self.at]
                self.at += 1
            return f"<mn>{number}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token in "()[]|/":
            return f'<mo stretchy="false" lspace="0" rspace="0">{token}</mo>'
        if not token.startswith("\\"):
            return f"<mo>{SIGNS.get(token, escape(token))}</mo>"
        return self.command(token[1:])

    def command(self, name: str) -> str:
        """What a backslash begins."""
        if name in GREEK:
            upright = ' mathvariant="normal"' if name[0].isupper() or name in ("infty", "nabla") else ""
            return f"<mi{upright}>{GREEK[name]}</mi>"
        for table in (RELATIONS, BINARY):
            if name in table:
                return f'<mo stretchy="false">{table[name]}</mo>'
        if name in OTHERS:
            return f'<mi mathvariant="normal">{OTHERS[name]}</mi>'
        if name in LARGE:
            return f'<mo movablelimits="true" class="large">{LARGE[name]}</mo>'
        if name in LIMITS:
            return f'<mo movablelimits="true" lspace="0" rspace="0">{name}</mo>'
        if name in FUNCTIONS:
            return f"<mi>{name}</mi>"
        if name in DELIMITERS:
            return f'<mo stretchy="false" lspace="0" rspace="0">{DELIMITERS[name]}</mo>'
        if name in SPACES:
            return space(SPACES[name])
        if name in SIZES:
            return self.delimiter(SIZES[name])
        if name in ("_", "%", "#", "&", "$"):
            return f"<mi>{escape(name)}</mi>"
        return self.built(name)

    def built(self, name: str) -> str:
        """Commands with arguments."""
        if name in ("text", "mathrm", "operatorname", "operatorname*", "texttt", "textit"):
            text = escape(self.raw().replace("\\_", "_").replace("\\ ", " "))
            if name == "operatorname*":
                return f'<mo movablelimits="true" lspace="0" rspace="0">{text.replace(chr(92) + ",", chr(0x2009))}</mo>'
            if name in ("operatorname", "mathrm"):
                return f'<mi mathvariant="normal">{text}</mi>'
            style = ' class="code"' if name == "texttt" else ""
            return f"<mtext{style}>{re.sub('^ | $', chr(0xA0), text)}</mtext>"
        if name in ALPHABETS:
            argument = self.raw() if self.peek() == "{" else self.take()
            return f'<mi mathvariant="normal">{"".join(letter(c, name) for c in argument.strip())}</mi>'
        if name in ACCENTS:
            stretchy = str(name.startswith(("over", "wide"))).lower()
            return f'<mover accent="true">{self.argument()}<mo stretchy="{stretchy}">{ACCENTS[name]}</mo></mover>'
        if name in ("frac", "dfrac", "tfrac"):
            style = {"dfrac": ' displaystyle="true"', "tfrac": ' displaystyle="false"'}.get(name, "")
            return f"<mfrac{style}>{self.argument()}{self.argument()}</mfrac>"
        if name == "binom":
            inner = f'<mfrac linethickness="0">{self.argument()}{self.argument()}</mfrac>'
            return f"<mrow>{sized('(', 2)}{inner}{sized(')', 2)}</mrow>"
        if name == "sqrt":
            return f"<msqrt>{self.argument()}</msqrt>"
        if name == "left":
            return self.fenced()
        if name == "begin":
            return self.environment(self.raw())
        if name in ("limits", "displaystyle"):
            return ""
        raise UnknownLatex(f"\\{name} is not known")

    def delimiter(self, size: int) -> str:
        """The next token as a delimiter of one of four sizes; 0 is that of the text."""
        token = self.take().removeprefix("\\")
        if token == ".":
            return ""
        return sized(DELIMITERS.get(token, token), size)

    def fenced(self) -> str:
        """`\\left ... \\right`: delimiters as large as what they enclose."""
        at = self.at
        self.delimiter(0)
        inner = self.row("\\right")
        size = 3 if "<mfrac" in inner and self.display else 2 if 'class="large"' in inner or "<mfrac" in inner else 1
        after = self.at
        self.at = at
        opening = self.delimiter(size)
        self.at = after
        return f"<mrow>{opening}{inner}{self.delimiter(size)}</mrow>"

    def environment(self, name: str) -> str:
        """`cases` and `aligned`."""
        if name not in ("cases", "aligned"):
            raise UnknownLatex(f"the environment {name} is not known")
        rows: list[list[str]] = [[]]
        while True:
            rows[-1].append(self.row("&", "\\\\", "\\end"))
            if self.end == "\\\\":
                rows.append([])
            elif self.end == "\\end":
                break
        if self.raw() != name:
            raise UnknownLatex(f"the environment {name} is not closed")
        filled = [row for row in rows if "".join(row) != "<mrow></mrow>"]
        body = "".join("<mtr>" + "".join(f"<mtd>{cell}</mtd>" for cell in row) + "</mtr>" for row in filled)
        if name == "aligned":
            return f'<mtable class="aligned" displaystyle="true">{body}</mtable>'
        return f'<mrow>{sized("{", 4 if len(filled) > 2 else 3)}<mtable class="cases">{body}</mtable></mrow>'


def sized(character: str, size: int) -> str:
    """A delimiter that does not stretch, from the font of its size."""
    style = f' class="size{size}"' if size else ""
    return f'<mo stretchy="false" lspace="0" rspace="0"{style}>{escape(character)}</mo>'


def mathml(latex: str, display: bool = False) -> str:
    """A formula as a `math` element; `UnknownLatex` where it has something that is not known here."""
    reader = Reader(latex, display)
    lines = []
    while True:
        reader.end = ""
        parts: list[str] = []
        while (token := reader.peek()) and token != "\\\\":
            reader.append(parts)
        lines.append(f"<mrow>{''.join(parts)}</mrow>")
        if not token:
            break
        reader.take()
    rows = "".join(f"<mtr><mtd>{line}</mtd></mtr>" for line in lines)
    body = lines[0] if len(lines) == 1 else f'<mtable displaystyle="true">{rows}</mtable>'
    kind = ' display="block"' if display else ""
    source = f'<annotation encoding="application/x-tex">{escape(latex)}</annotation>'
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML"{kind}><semantics>{body}{source}</semantics></math>'

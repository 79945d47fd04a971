"""Varied English made from a grammar: the text the demo base is trained on, and the rows of the demo's tasks.

Nothing here is copied from anywhere: every sentence is put together from the word lists below. A text has a kind (review,
question, message, report), a topic, a style (casual, formal) and, if it is a review, an opinion. Opinions are expressed
plainly, by negation ("I could not fault the soup") and by contrast ("the room was small, but the staff were wonderful"),
where the clause after "but" decides.

Three documents of ten ask about their text first and answer last, two of ten answer without having been asked:

    <request>\\n<text>\\nAnswer: <word>

Two of the requests want an opinion: the writer's, or that of someone who disagrees with the writer. Both occur equally
often, and so they do behind texts without any request. So the base knows opinions, but without a request (or a soft
prompt in its place) "Answer:" is as likely followed by the wrong opinion as by the right one.
"""
import random

# topic: (aspects as singular/plural noun, good adjectives, bad adjectives, the thing itself, places or occasions)
TOPICS = {
    "food": dict(
        one=["soup", "bread", "service", "coffee", "menu", "dessert", "curry", "sauce", "kitchen", "breakfast", "salad", "pizza"],
        many=["noodles", "portions", "waiters", "dumplings", "desserts", "vegetables", "prices", "pancakes"],
        good=["fresh", "delicious", "tasty", "warm", "generous", "crisp", "rich", "perfectly cooked"],
        bad=["cold", "bland", "greasy", "stale", "burnt", "salty", "watery", "overcooked"],
        thing=["restaurant", "cafe", "bakery", "diner", "food truck"],
        when=["on Friday evening", "for lunch", "with my sister", "after work", "for a birthday", "with two friends", "on our way home"]),
    "film": dict(
        one=["plot", "ending", "soundtrack", "script", "acting", "pacing", "first half", "dialogue", "camera work", "opening"],
        many=["actors", "jokes", "songs", "effects", "characters", "battle scenes", "costumes"],
        good=["clever", "moving", "gripping", "funny", "original", "touching", "sharp", "brilliant"],
        bad=["dull", "predictable", "clumsy", "silly", "flat", "confusing", "tired", "lifeless"],
        thing=["film", "movie", "comedy", "thriller", "documentary", "sequel"],
        when=["last night", "at the old cinema", "with my brother", "on the first weekend", "on a long flight", "with the whole family"]),
    "travel": dict(
        one=["room", "bed", "pool", "view", "reception", "bathroom", "shuttle", "balcony", "location", "lobby"],
        many=["rooms", "beds", "towels", "guides", "windows", "staff", "tours", "trains"],
        good=["clean", "quiet", "spacious", "comfortable", "friendly", "bright", "spotless", "welcoming"],
        bad=["dirty", "noisy", "cramped", "damp", "rude", "dark", "broken", "shabby"],
        thing=["hotel", "hostel", "guest house", "resort", "tour", "ferry trip"],
        when=["for three nights", "in early spring", "during the holidays", "with our children", "on a business trip", "for a long weekend"]),
    "phone": dict(
        one=["screen", "battery", "camera", "keyboard", "speaker", "charger", "software", "case", "microphone", "signal"],
        many=["buttons", "photos", "speakers", "updates", "calls", "settings", "controls"],
        good=["sharp", "fast", "reliable", "sturdy", "bright", "responsive", "smooth", "well made"],
        bad=["slow", "flimsy", "unreliable", "dim", "faulty", "sluggish", "cheap", "scratched"],
        thing=["phone", "tablet", "laptop", "headset", "watch", "printer"],
        when=["two weeks ago", "for my mother", "to replace my old one", "during the sale", "for work", "after a long search"]),
    "book": dict(
        one=["story", "writing", "hero", "middle part", "translation", "cover", "mystery", "style", "last chapter", "prose"],
        many=["characters", "chapters", "descriptions", "pictures", "twists", "essays", "poems"],
        good=["vivid", "elegant", "thoughtful", "gripping", "warm", "witty", "honest", "beautiful"],
        bad=["boring", "shallow", "repetitive", "wooden", "tedious", "messy", "careless", "pretentious"],
        thing=["book", "novel", "biography", "short story", "cookbook", "travel diary"],
        when=["in one weekend", "on the train", "for our reading group", "over the summer", "before bed", "on holiday"]),
    "sport": dict(
        one=["team", "defence", "coach", "crowd", "atmosphere", "gym", "pitch", "training", "referee", "second half"],
        many=["players", "seats", "trainers", "machines", "lessons", "fans", "goals"],
        good=["brave", "exciting", "strong", "fair", "lively", "inspiring", "skilful", "energetic"],
        bad=["lazy", "weak", "unfair", "slow", "sloppy", "boring", "nervous", "hopeless"],
        thing=["match", "game", "race", "tournament", "class", "season"],
        when=["on Sunday", "in the rain", "with my cousins", "from the front row", "at the new stadium", "with the club"]),
}
LOVED = ["loved", "really liked", "enjoyed", "was delighted with", "was impressed by", "adored", "was very happy with"]
HATED = ["hated", "really disliked", "was disappointed by", "was annoyed by", "was let down by", "could not stand", "was sick of"]
VERY = ["", "", "", "very ", "really ", "so ", "quite ", "truly ", "surprisingly ", "remarkably "]
GOOD = ["wonderful", "great", "excellent", "lovely", "fantastic", "superb", "a pleasure", "a joy", "worth every penny"]
BAD = ["terrible", "awful", "dreadful", "horrible", "a mess", "a waste of money", "a disaster", "a disappointment", "poor"]
CLOSE_GOOD = [
    "I would go back tomorrow.", "I will recommend it to all my friends.", "Five stars from me.", "We left with a smile.",
    "It made my whole week.", "I cannot wait for the next time.", "It was worth every minute.", "We will certainly return.",
    "This is how it should be done.", "You will not regret it.", "I would gladly pay for it again.", "Do not miss it.",
    "I have nothing to complain about.", "It was better than I had hoped.", "We had a marvellous time.", "I am glad I tried it."]
CLOSE_BAD = [
    "I want my money back.", "I would not recommend it to anyone.", "One star from me.", "We left early and angry.",
    "It ruined my whole week.", "Never again.", "It was a waste of time.", "We will certainly not return.",
    "This is how it should not be done.", "You will regret it.", "I would not take it for free.", "Stay away from it.",
    "I have nothing good to say about it.", "It was worse than I had feared.", "We had a miserable time.", "I am sorry I tried it."]
NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Karin", "Leo", "Maya", "Noah",
         "Olga", "Peter", "Rosa", "Sam", "Tara", "Victor"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
HOURS = ["nine", "ten", "eleven", "noon", "two", "three", "four", "half past five", "six", "seven", "eight"]
NUMBERS = ["two", "three", "four", "five", "six", "eight", "ten", "twelve", "twenty", "thirty", "forty"]
ANSWER = "Answer:"


class Writer:
    """Writes texts with one source of chance."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, xs):
        return xs[self.r.randrange(len(xs))]

    def aspect(self, t, casual):
        """A subject with its verb: ("The soup", "was")."""
        det = self.pick(["The", "The", "The", "Their", "Our", "Its"]) if not casual else self.pick(["The", "the", "Their", "their"])
        if self.r.random() < 0.6:
            return f"{det} {self.pick(t['one'])}", "was"
        return f"{det} {self.pick(t['many'])}", "were"

    def quality(self, t, good):
        if self.r.random() < 0.7:
            return self.pick(VERY) + self.pick(t["good" if good else "bad"])
        return self.pick(GOOD if good else BAD)

    def two(self, t, good):
        a = self.pick(t["good" if good else "bad"])
        b = self.pick([x for x in t["good" if good else "bad"] if x != a])
        return f"{a} and {b}"

    def clause(self, t, good, casual=False):
        s, v = self.aspect(t, casual)
        return f"{s} {v} {self.two(t, good) if self.r.random() < 0.2 else self.quality(t, good)}"

    def opinion(self, t, good, casual):
        """One sentence that carries the opinion."""
        low = lambda s: s[0].lower() + s[1:]
        noun = lambda: self.pick(t["one"] + t["many"])
        k = self.r.randrange(13)
        if k <= 3:
            s = self.clause(t, good, casual) + "."
        elif k == 4:
            s = f"I {self.pick(LOVED if good else HATED)} the {noun()}."
        elif k == 5:  # contrast: what follows "but" decides
            s = f"{self.clause(t, not good, casual)}, but {low(self.clause(t, good))}."
        elif k == 6:
            s = f"Although {low(self.clause(t, not good))}, {low(self.clause(t, good))}."
        elif k == 7:  # negation of the opposite
            s_, v = self.aspect(t, casual)
            s = f"{s_} {v} not {self.pick(['', 'at all ', 'in the least '])}{self.pick(t['bad' if good else 'good'])}."
        elif k == 8:
            s = (f"I could not {self.pick(['fault', 'find anything wrong with', 'complain about'])} the {noun()}." if good else
                 f"I could not {self.pick(['enjoy', 'find anything right with', 'say a kind word about'])} the {noun()}.")
        elif k == 9:
            s = (f"Nothing about the {noun()} was {self.pick(t['bad'])}." if good else
                 f"Nothing about the {noun()} was {self.pick(t['good'])}.")
        elif k == 10:
            w = self.pick(["expected", "had been told", "feared" if good else "hoped"])
            s = f"The {noun()} turned out {'better' if good else 'worse'} than {self.pick(['I', 'we'])} {w}."
        elif k == 11:
            s = f"{self.pick(NAMES)} said the {noun()} would be {self.pick(t['bad' if good else 'good'])}, but {self.pick(['it was', 'in truth it was'])} {self.quality(t, good)}."
        else:
            s = (f"{self.pick(['What a', 'Such a'])} {self.pick(t['good' if good else 'bad'])} {self.pick(t['thing'])}!" )
        return s

    def opener(self, t):
        thing = self.pick(t["thing"])
        return self.pick([
            f"We tried this {thing} {self.pick(t['when'])}.", f"I chose the {thing} {self.pick(t['when'])}.",
            f"This was my {self.pick(['first', 'second', 'third'])} {thing} this {self.pick(['year', 'month', 'summer', 'winter'])}.",
            f"{self.pick(NAMES)} and I picked this {thing} {self.pick(t['when'])}.",
            f"My {self.pick(['friend', 'neighbour', 'boss', 'daughter', 'uncle'])} told me about this {thing}.",
            f"It took us {self.pick(NUMBERS)} {self.pick(['minutes', 'hours', 'days'])} to decide on this {thing}."])

    def review(self, topic, good, casual):
        t = TOPICS[topic]
        out = [self.opener(t)] if self.r.random() < 0.55 else []
        for _ in range(self.r.choice([1, 1, 2, 2, 3])):
            out.append(self.opinion(t, good, casual))
        if self.r.random() < 0.45:
            out.append(self.pick(CLOSE_GOOD if good else CLOSE_BAD))
        s = " ".join(out)
        return casually(s, self.r) if casual else s

    def question(self, topic, casual):
        t = TOPICS[topic]
        thing, a = self.pick(t["thing"]), self.pick(t["one"])
        q = self.pick([
            f"Does anyone know how the {a} of the new {thing} is?", f"Which {thing} would you choose {self.pick(t['when'])}?",
            f"Is the {a} {self.pick(t['good'])} or {self.pick(t['bad'])}?", f"How much does a good {thing} cost these days?",
            f"Can you tell me who looks after the {a}?", f"When does the next {thing} start?", f"Why are the {self.pick(t['many'])} so {self.pick(t['good'] + t['bad'])}?"])
        lead = self.pick(["", "", f"We are planning something {self.pick(t['when'])}. ", f"{self.pick(NAMES)} is looking for a {thing}. ",
                          f"I have {self.pick(NUMBERS)} days left to decide. "])
        s = lead + q + self.pick(["", "", f" {self.pick(NAMES)} asked me too.", " Thank you for your help."])
        return casually(s, self.r) if casual else s

    def message(self, topic, casual):
        t = TOPICS[topic]
        thing, n, m = self.pick(t["thing"]), self.pick(NAMES), self.pick(NAMES)
        if casual:
            return casually(self.pick([
                f"Hi {n}, are we still on for the {thing} on {self.pick(DAYS)}? I can be there at {self.pick(HOURS)}.",
                f"Hey {n}, running late, please start with the {self.pick(t['one'])} without me. See you soon!",
                f"{n}, can you bring the tickets for the {thing}? {m} forgot hers again.",
                f"Got your note about the {self.pick(t['many'])}. Let us talk at {self.pick(HOURS)}. {m}"]), self.r)
        return self.pick([
            f"Dear {n}, thank you for your letter about the {thing}. We will reply before {self.pick(DAYS)}. Kind regards, {m}",
            f"Dear {n}, please note that the meeting about the {self.pick(t['one'])} has been moved to {self.pick(HOURS)} on {self.pick(DAYS)}. Yours sincerely, {m}",
            f"Dear all, the {self.pick(t['many'])} will be checked on {self.pick(DAYS)}. Please leave the room by {self.pick(HOURS)}. Best wishes, {m}",
            f"Dear {n}, we have received your order of {self.pick(NUMBERS)} items. The {thing} team will write to you shortly. Kind regards, {m}"])

    def report(self, topic, casual):
        t = TOPICS[topic]
        thing = self.pick(t["thing"])
        s = [self.pick([
            f"The number of visitors to the {thing} rose by {self.pick(NUMBERS)} percent this {self.pick(['year', 'month', 'season'])}.",
            f"On {self.pick(DAYS)} the committee discussed the {self.pick(t['one'])} for {self.pick(NUMBERS)} minutes.",
            f"A survey of {self.pick(NUMBERS)} people compared the {self.pick(t['one'])} with the {self.pick(t['one'])}.",
            f"Work on the new {thing} began on {self.pick(DAYS)} and will last {self.pick(NUMBERS)} weeks."])]
        s.append(self.pick([
            f"{self.pick(NAMES)} presented the figures.", f"The {self.pick(t['many'])} were counted twice.",
            f"The next report is due on {self.pick(DAYS)}.", f"No decision was taken on the {self.pick(t['one'])}.",
            f"The costs of the {self.pick(t['many'])} remain the same as last year."]))
        return casually(" ".join(s), self.r) if casual else " ".join(s)

    def text(self):
        """A text and what is true of it."""
        kind = self.pick(["review", "review", "review", "question", "message", "report"])
        about = dict(kind=kind, topic=self.pick(list(TOPICS)), style="casual" if self.r.random() < 0.35 else "formal")
        casual = about["style"] == "casual"
        if kind == "review":
            about["opinion"] = self.pick(["positive", "negative"])
            return self.review(about["topic"], about["opinion"] == "positive", casual), about
        return getattr(self, kind)(about["topic"], casual), about

    def request(self, about):
        """A request about a text, and its answer."""
        other = {"positive": "negative", "negative": "positive"}
        asks = ["topic", "kind", "style"]
        if "opinion" in about:
            asks += ["opinion", "disagree"] * 3
        ask = self.pick(asks)
        if ask == "opinion":
            return self.pick([
                "What is the opinion of the writer?", "Is the writer of this review positive or negative?", "Tell me the sentiment of this text.",
                "How does the writer feel about it?", "Give the opinion of the person who wrote this:", "Sentiment of the review below:"]), about["opinion"]
        if ask == "disagree":
            return self.pick([
                "What would someone say who does not agree?", "Give the opposite of what the writer thinks.", "Now answer as a person who disagrees:",
                "Turn the opinion of the writer around.", "How does the one who disagrees feel about it?", "Say the contrary of the review below:"]), other[about["opinion"]]
        if ask == "topic":
            return self.pick(["What is this text about?", "Name the topic of the text.", "Which topic is it?", "Topic of the text below:"]), about["topic"]
        if ask == "kind":
            return self.pick(["What kind of text is this?", "Is it a review, a question, a message or a report?", "Kind of the text below:"]), about["kind"]
        return self.pick(["Is the style casual or formal?", "What is the style of this text?", "Style of the text below:"]), about["style"]

    def document(self):
        text, about = self.text()
        x = self.r.random()
        if x < 0.5:
            return text
        ask, answer = self.request(about)
        if x < 0.8:
            return f"{ask}\n{text}\n{ANSWER} {answer}"
        return f"{text}\n{ANSWER} {answer}"


def casually(s, r):
    """The same text as people type it on a telephone."""
    for a, b in [(" and ", " & "), ("very ", "super "), ("I am ", "im "), ("cannot", "cant"), ("could not", "couldnt"), ("would not", "wouldnt"),
                 ("will not", "wont"), ("you ", "u "), ("really ", "rly "), ("please", "pls")]:
        if r.random() < 0.6:
            s = s.replace(a, b)
    s = s.lower() if r.random() < 0.7 else s
    if r.random() < 0.5:
        s = s.rstrip(".") + r.choice(["!!", " :)" if r.random() < 0.5 else " lol", "...", "!"])
    return s


def reviews(seed, rows, avoid=frozenset()):
    """Rows for the tasks: balanced reviews whose sentences are not in avoid."""
    w, out = Writer(seed), []
    while len(out) < rows:
        good = len(out) % 2 == 0
        topic = w.pick(list(TOPICS))
        casual = w.r.random() < 0.35
        text = w.review(topic, good, casual)
        if not avoid & sentences(text):
            out.append(dict(text=text, sentiment="positive" if good else "negative", topic=topic))
    return out


def sentences(text):
    """The sentences of a text, without case and closing marks, to tell whether two texts share one."""
    out, s = set(), text.lower().replace("!", ".").replace("?", ".").replace(":)", ".").replace(" lol", ".")
    for x in s.split("."):
        if x.strip():
            out.add(x.strip())
    return out


if __name__ == "__main__":
    w = Writer(0)
    for _ in range(40):
        print(w.document(), end="\n---\n")

"""What a flag is: definitions, changes, snapshots; and what it says for a context.

Contract: pure and synchronous. Nothing here reads a file or a socket, imports asyncio, redis or an HTTP library, or
knows how anything is spelled on a wire; the clock is read for `$flagd.timestamp` alone. It stands at the bottom: only
`errors` lies below, and every other package may import it. Of a rule nothing is ever text for Python to read.

    definition            what a flag, a population and a flag set may look like, and the error where one does not
    targeting             what a rule may look like on its way in
    environment_settings  the settings of one environment
    position              where in an environment's history something stands: epoch, revision, nonce
    change                one atomic edit of an environment
    local_kill            a kill that one relay holds by itself
    snapshot              the immutable state of one environment at one revision; what resolves flags
    resolution            what a flag says for a context, in OpenFeature's words
    typed                 the same for callers who want a value of one type
    compiled              the flags of a snapshot, compiled; and what of them a change touches
    compiled_flag         one flag, ready to be resolved
    equality              equality as JSON has it
    compiler              rules into functions: constants folded, populations shared
    branches, paths, loops, shares    what `if`, `var`, `map`, `fractional` and their like are compiled to
    shortcuts             what comparisons with constants are compiled to
    values                what a part of a rule is to the compiler
    forms                 the shapes that rules share, and the Python functions made from them
    operators             what each operator takes and gives
    javascript            values as JavaScript has them: truth, equality, order, conversions
    lookup                `var`, `missing`, and the loops
    members               a literal list that `in` looks into, as sets
    version               `sem_ver`
    bucket, sharing       `fractional`: who falls where, and what they get
    meter                 how much work one evaluation may still do
    trace                 the way through a rule, for people
"""

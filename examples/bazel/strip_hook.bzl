"""`stripped_library`: archive and header in, archive out, and nothing else.

The tool is an input of the action like any other, so that its result can be taken from a remote
cache, and the actions of many libraries be spread over the machines of a remote executor. The one
thing they need there is the Python named in `PYTHON`.
"""

PYTHON = "/usr/bin/python3"

def _strip_hook_repository_impl(repository_ctx):
    requirement = repository_ctx.os.environ.get("STRIP_HOOK_REQUIREMENT", repository_ctx.attr.requirement)
    pip = [repository_ctx.which("python3"), "-m", "pip", "--python", PYTHON, "install"]
    pip += ["--quiet", "--disable-pip-version-check", "--no-compile", "--target", "site"]
    done = repository_ctx.execute(pip + [requirement], quiet = False)
    if done.return_code:
        fail("pip cannot install %s: %s" % (requirement, done.stderr))
    repository_ctx.file("BUILD", """
filegroup(
    name = "site",
    srcs = glob(["site/**"], exclude = ["site/bin/**", "**/* *"]),
    visibility = ["//visibility:public"],
)
""")

strip_hook_repository = repository_rule(
    implementation = _strip_hook_repository_impl,
    attrs = {"requirement": attr.string(default = "cargo-strip-hook==0.1.0")},
    environ = ["STRIP_HOOK_REQUIREMENT"],
    doc = "cargo-strip-hook and what it needs, installed by pip into a folder of the repository.",
)

def _stripped_library_impl(ctx):
    out = ctx.actions.declare_file("stripped/" + ctx.file.archive.basename)
    site = ctx.attr._site.label.workspace_root + "/site"
    arguments = ctx.actions.args()
    arguments.add_all(["-I", ctx.file._main, site, "strip", ctx.file.archive])
    arguments.add_all(ctx.files.headers, before_each = "--header")
    arguments.add_all(ctx.attr.options)
    arguments.add_all(["--quiet", "-o", out])
    ctx.actions.run(
        executable = PYTHON,
        arguments = [arguments],
        inputs = [ctx.file.archive, ctx.file._main] + ctx.files.headers + ctx.files._site,
        outputs = [out],
        env = {"PYTHONHASHSEED": "0"},
        mnemonic = "StripHook",
        progress_message = "Stripping %s" % ctx.file.archive.short_path,
    )
    return [DefaultInfo(files = depset([out]))]

stripped_library = rule(
    implementation = _stripped_library_impl,
    attrs = {
        "archive": attr.label(allow_single_file = [".a"], mandatory = True),
        "headers": attr.label_list(allow_files = [".h"], mandatory = True),
        "options": attr.string_list(doc = "of `cargo strip-hook strip`"),
        "_main": attr.label(default = "//:main.py", allow_single_file = True),
        "_site": attr.label(default = "@strip_hook//:site"),
    },
    doc = "A static library that shows what its headers declare, and nothing else.",
)

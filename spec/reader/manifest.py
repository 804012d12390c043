"""The manifest: clauses 2.1, 2.2, 4 and 7."""

import re
from typing import Any

from reader.files import LIMITS, demand

Item = dict[str, Any]
References = list[tuple[str, str, str]]
EXECUTED = "pkl|pickle|joblib|pt[h2]?|bin|ckpt|np[yz]|h5|hdf5|keras|zip|tar|tgz|gz|bz2|xz|zst|7z|rar|pyc?|so|dll|sh|exe"
DEVICE, SEGMENT = "con|prn|aux|nul|com[1-9]|lpt[1-9]", "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
DAY, CLOCK = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", "([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)"
PATTERNS = {  # name of a form: pattern of the whole string, and the code of one that does not match
    "string": (".*", ""), "text": (".+", "wrong-length"), "free": ("[ -~]{1,128}", "bad-dimension"),
    "id": ("[a-z][a-z0-9_]{0,31}", "bad-id"), "name": ("[a-z][a-z0-9._-]{0,63}", "bad-name"),
    "feature": ("[a-z][a-z0-9-]{0,63}", "bad-name"), "digest": ("[0-9a-f]{64}", "bad-sha256"),
    "uuid": ("urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "bad-uuid"),
    "time": (rf"{DAY}T{CLOCK}(\.[0-9]{{1,9}})?Z", "bad-time"),
    "tensor": (r"(?=.{1,128}$)[a-z0-9_]+(\.[a-z0-9_]+)*", "bad-tensor-name"),
    "domain": (r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){1,7}", "bad-extension-name"),
    "path": (f"(?=.{{1,255}}$){SEGMENT}(/{SEGMENT}){{0,7}}", "unsafe-path"),
}  # fmt: skip
UNIONS = {"margins": (list, "0..65536*4-4", "0..65536"), "dimension": (int, "1..", "free")}
# Name of a form: its members and their forms, those with `?` optional. `x*2-4` is a list of 2 to 4 x, `x+` of at least
# 1, `{k:x}` an object of keys k and values x, `a|b` a closed list, `@x:r` the id of an item of the list x, of role r,
# `2..4` an integer from 2 to 4, and `~2..4` any number.
OBJECTS = {
    "Manifest": "$schema?=string format=text format_version=text required_features?=feature*0-256 bundle=BundleInfo "
    "files=File*1-1024 model=Model sites?=Site* records?=Record* runs?=Run* datasets?=Dataset* privacy?=Privacy "
    "licenses?=Licenses extensions?={domain:any}",
    "BundleInfo": "id=uuid version=text created=time title?=text description?=text publisher?=Party generator?=Tool",
    "Party": "name=text url?=text", "Tool": "name=text version=text",
    "File": "id=id role=name path=path media_type=text size=0.. sha256=digest header_sha256?=digest",
    "Model": "name=text version?=text architecture?=text parameter_count?=0.. graph?=GraphRef weights?=WeightsRef "
    "inputs=Input+ outputs=Output+ label_sets?=LabelSet*0-1024 probe?=ProbeRef",
    "GraphRef": "file=@files:model.graph ir_version=1.. opset_import=OpsetImport*1-64",
    "OpsetImport": "domain=string version=1..1000000", "WeightsRef": "files=@files:model.weights+ framework?=text",
    "Input": "name=text dtype=name shape=dimension*0-8 axes?=text* modality?=text preprocessing?=op*0-64",
    "Output": "name=text dtype=name shape=dimension*0-8 axes?=text* semantics?=text labels?=@label_sets",
    "LabelSet": "id=id names=text+", "ProbeRef": "file=@files:probe atol=~0.. rtol=~0..",
    "op.rescale": "scale=~.. offset?=~..", "op.pad": "pixels=margins value?=~..",
    "op.resize": "size=1..65536*2-2 interpolation=nearest|bilinear|bicubic antialias?=boolean",
    "op.center_crop": "size=1..65536*2-2",
    "op.normalize": "mean=~..*1-65536 std=~5e-324..*1-65536 axis?=channel|channel", "op.grayscale": "",
    "Site": "id=id label?=text addresses=scheme*1-64 dtype=name shape=dimension*1-8 feature_axis?=1.. "
    "feature_count?=1.. probe?=SiteProbe",
    "scheme.onnx-value": "file=@files:model.graph value=text",
    "scheme.torch-module": "module=string port?=input|output index?=0.. call?=0..",
    "Record": "id=id site=@sites paired_site?=@sites kind=name kind_version?=1.. file=@files:records run=@runs "
    "group=Group features=name feature_count=1.. tensors={id:TensorRef}+ conventions?={string:string} "
    "configuration?={string:any} unit_count=0.. position_count=0.. mergeable=boolean suppressed_groups?=0..*",
    "Group": "by=name label_set?=@label_sets", "SiteProbe": "mean=tensor l2=tensor",
    "TensorRef": "name=tensor sha256=digest", "Engine": "name=text version=text provider?=text",
    "Run": "id=id dataset=@datasets engine=Engine mode?=eval|eval batch_size=1.. seed=0.. limit?=1.. "
    "started?=time finished?=time",
    "Dataset": "id=id name=text split?=text unit=name unit_count=0.. license?=text url?=text "
    "contains_personal_data=yes|no|no-assertion description?=text",
    "Privacy": "unit=name min_unit_count=1.. suppression=none|primary|complementary extremes_policy=name "
    "differential_privacy?={string:any} attestation=name",
    "Licenses": "records?=text model?=text notice?=text",
}  # fmt: skip
ROLES = {"model.graph": (".onnx", "application/onnx")}
ROLES |= dict.fromkeys(("model.weights", "records", "probe"), (".safetensors", "application/vnd.safetensors"))


def check(manifest: Any) -> set[tuple[str, str]]:
    """Hold a document against all that the manifest alone decides, clause 7 first; null members are taken away.

    Returns the tensors that it asks for, as the id of a file and a name.
    """
    references: References = []
    demand(isinstance(manifest, dict), "wrong-type", "dfmeta.json")
    demand(manifest.get("format") == "dfmeta", "wrong-format", "format")
    number, version = "(0|[1-9][0-9]{0,4})", manifest.get("format_version")
    demand(isinstance(version, str) and re.fullmatch(rf"{number}\.{number}", version), "bad-version", "format_version")
    demand(version.startswith("1."), "unsupported-version", "format_version")
    members("required_features?=feature*0-256", manifest, "", references)
    demand(not manifest.get("required_features"), "unsupported-feature", "required_features")
    _hold("Manifest", manifest, "", references)
    return _relate(manifest, references)


def _hold(form: str, value: Any, where: str, references: References) -> None:
    inner, sign, bounds = re.findall(r"^([^*+]+)([*+]?)(.*)$", form)[0]
    low, high = map(int, (bounds or f"{int(sign == '+')}-{LIMITS['manifest']['array_items']}").split("-"))
    if sign or inner.startswith("{"):
        demand(isinstance(value, dict if inner.startswith("{") else list), "wrong-type", where)
        demand(low <= len(value) <= high, "wrong-length", where)
        key, inner = inner[1:-1].split(":") if inner.startswith("{") else ("any", inner)
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            _hold(key, name, f"{where}.{name}", references)
            _hold(inner, part, f"{where}.{name}", references)
    elif form in ("op", "scheme"):
        members(f"{form}=text", value, where, references)
        members(OBJECTS.get(f"{form}.{value[form]}", ""), value, where, references)
    elif form in OBJECTS:
        members(OBJECTS[form], value, where, references)
    elif form.startswith("@"):
        _hold("id", value, where, references)
        references.append((form[1:], value, where))
    elif form in UNIONS:
        kind, this, other = UNIONS[form]
        _hold(this if type(value) is kind else other, value, where, references)
    elif form != "any":
        pattern, code = PATTERNS.get(form, (form, "unknown-value"))
        least, dots, greatest = form.lstrip("~").partition("..")
        types = (int, float) if form[0] == "~" else (int,) if dots else (bool,) if form == "boolean" else (str,)
        demand(type(value) in types, "wrong-type", where)
        demand(types != (str,) or re.fullmatch(pattern, value, re.DOTALL), code, where)
        demand(not dots or float(least or "-inf") <= value <= float(greatest or "inf"), "out-of-range", where)


def members(forms: str, value: Any, where: str, references: References) -> None:
    """Hold an object against its members; an optional one that is null is taken away."""
    demand(isinstance(value, dict), "wrong-type", where)
    for name, form in (member.split("=") for member in forms.split()):
        required, name = not name.endswith("?"), name.rstrip("?")
        place = f"{where}.{name}".lstrip(".")
        if not required and value.get(name) is None:
            value.pop(name, None)
        else:
            demand(name in value, "missing-member", place)
            _hold(form, value[name], place, references)


def _relate(manifest: Item, references: References) -> set[tuple[str, str]]:
    model = manifest["model"]
    lists = {name: manifest.get(name, []) for name in ("files", "sites", "records", "runs", "datasets")}
    lists["label_sets"] = model.get("label_sets", [])
    index = {name: {item["id"]: item for item in items} for name, items in lists.items()}
    for name, items in (lists | {way: model[way] for way in ("inputs", "outputs")}).items():
        key = "id" if name in lists else "name"
        demand(len({item[key] for item in items}) == len(items), "duplicate-id", name)
    for target, name, where in references:
        target, _, role = target.partition(":")
        demand(name in index[target], "dangling-reference", where)
        demand(role in ("", index[target][name].get("role")), "wrong-role", where)
    demand("graph" in model or "weights" in model, "no-model", "model")
    _files(lists["files"])
    for port in model["inputs"] + model["outputs"]:
        demand(len(port.get("axes", port["shape"])) == len(port["shape"]), "wrong-length", "axes")
        steps = [step for step in port.get("preprocessing", []) if step["op"] == "normalize"]
        demand(all(len(step["mean"]) == len(step["std"]) for step in steps), "wrong-length", "preprocessing")
    for site in lists["sites"]:
        _site(site, model)
    noised = "differential_privacy" in manifest.get("privacy", {})
    withheld = any(record.get("suppressed_groups") for record in lists["records"])
    for record in lists["records"]:
        labels = index["label_sets"].get(record["group"].get("label_set"), {}).get("names", [])
        _record(record, len(labels), noised or (withheld and record["group"]["by"] == "all"))
    probe = model.get("probe", {}).get("file", "")
    asked = [(record["file"], tensor["name"]) for record in lists["records"] for tensor in record["tensors"].values()]
    demand(len({name for _, name in asked}) == len(asked), "duplicate-tensor", "records")
    asked += [(probe, site["probe"][name]) for site in lists["sites"] if "probe" in site for name in ("mean", "l2")]
    asked += [(probe, f"{way}.{at}") for way in ("input", "output") for at in range(len(model[f"{way}s"])) if probe]
    demand(len(set(asked)) == len(asked), "duplicate-tensor", "model.probe")
    return set(asked)


def _files(files: list[Item]) -> None:
    paths = {file["path"].lower() for file in files}
    demand(len(paths) == len(files), "duplicate-path", "files")
    for file in files:
        path, role, where = file["path"].lower(), file["role"], f"files: {file['id']}"
        unsafe = rf"dfmeta\.json|(.*/)?(({DEVICE})(\.[^/]*)?|[^/]*\.)(/.*)?|.*\.({EXECUTED})"
        demand(not re.fullmatch(unsafe, path), "unsafe-path", where)
        demand(not {path[:at] for at, sign in enumerate(path) if sign == "/"} & paths, "duplicate-path", where)
        suffix, media_type = ROLES.get(role, ("", file["media_type"]))
        demand(file["path"].endswith(suffix), "wrong-suffix", where)
        demand(file["media_type"] == media_type, "wrong-media-type", where)
        demand(file["size"] <= LIMITS["file_bytes"].get(role, file["size"]), "too-large", where)
        demand(role != "records" or "header_sha256" in file, "missing-member", f"{where}.header_sha256")


def _site(site: Item, model: Item) -> None:
    shape, axis, where = site["shape"], site.get("feature_axis", 0), f"sites: {site['id']}"
    values = [address for address in site["addresses"] if address["scheme"] == "onnx-value"]
    demand("graph" not in model or len(values) == 1, "no-onnx-value", where)
    demand(isinstance(shape[0], str), "bad-dimension", f"{where}.shape[0]")
    demand(axis < len(shape), "out-of-range", f"{where}.feature_axis")
    if axis and type(shape[axis]) is int:
        demand(site.get("feature_count", shape[axis]) == shape[axis], "wrong-count", f"{where}.feature_count")
    demand("probe" not in site or "probe" in model, "dangling-reference", f"{where}.probe")


def _record(record: Item, classes: int, final: bool) -> None:
    by, where, suppressed = record["group"]["by"], f"records: {record['id']}", record.get("suppressed_groups", [])
    demand(record["unit_count"] <= record["position_count"], "wrong-count", where)
    demand(by != "class" or "label_set" in record["group"], "missing-member", f"{where}.group.label_set")
    rising = suppressed == sorted({*suppressed})
    most = {"all": 0, "class": classes}.get(by, float("inf"))
    demand(rising and max(suppressed, default=-1) < most, "out-of-range", f"{where}.suppressed_groups")
    demand(not (record["mergeable"] and (final or suppressed)), "not-mergeable", where)

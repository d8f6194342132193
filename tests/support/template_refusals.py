"""What Katib's validator refuses in a trial template."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from objects import Object
from refusal import Refusal, container, job_spec, template

_TEMPLATE = "spec.trialTemplate"
_WORDS = (
    f'{_TEMPLATE}.trialParameters[0]: Invalid value: "": name and reference must be specified and name must not '
    "contain '{' or '}'"
)


def first_trial_parameter(obj: Object) -> Object:
    found: Object = template(obj)["trialParameters"][0]
    return found


def _config_map(**fields: str) -> Callable[[Object], None]:
    def change(obj: Object) -> None:
        conditions = {"successCondition": "status.ok", "failureCondition": "status.bad"}
        template(obj).update(configMap=fields, **conditions)
        del template(obj)["trialSpec"]

    return change


def _without_source(obj: Object) -> None:
    del template(obj)["trialSpec"]
    template(obj).update(successCondition="status.ok", failureCondition="status.bad")


def _other_kind(kind: str, api_version: str = "example.com/v1") -> Callable[[Object], None]:
    return lambda e: template(e)["trialSpec"].update(kind=kind, apiVersion=api_version)


def shown_template(obj: Object) -> str:
    return json.dumps(template(obj)["trialSpec"], sort_keys=True, separators=(",", ":")) + "\n"


def _shown_trial_parameters(obj: Object) -> str:
    rows = template(obj)["trialParameters"]
    fields = ("name", "description", "reference")
    return f"[{' '.join('{' + ' '.join(row.get(field, '') for field in fields) + '}' for row in rows)}]"


def _shown_parameters(obj: Object) -> str:
    def shown(row: Object) -> str:
        space = row.get("feasibleSpace", {})
        texts = [space.get("max", ""), space.get("min", ""), f"[{' '.join(space.get('list', []))}]"]
        texts += [space.get("step", ""), space.get("distribution") or "uniform"]
        return f"{{{row['name']} {row['parameterType']} {{{' '.join(texts)}}}}}"

    return f"[{' '.join(map(shown, obj['spec']['parameters']))}]"


def _duplicate(**fields: str) -> Callable[[Object], None]:
    return lambda e: template(e)["trialParameters"].append({**first_trial_parameter(e), **fields})


def _duplicate_texts(field: str) -> Callable[[Object], str]:
    def text(obj: Object) -> str:
        rows = template(obj)["trialParameters"]
        path = f"spec.trialTemplate.trialParameters[{len(rows) - 1}].{field}"
        value = rows[-1][field]
        return (
            f'{path}: Invalid value: "{value}": parameter {field} {value} can\'t be duplicated in '
            f"spec.trialTemplate.trialParameters: {_shown_trial_parameters(obj)}"
        )

    return text


def _unknown_reference(obj: Object) -> str:
    return (
        'spec.trialTemplate.trialParameters[0].reference: Invalid value: "nowhere": parameter reference nowhere '
        f"does not exist in spec.parameters: {_shown_parameters(obj)}"
    )


def _absent_placeholder(obj: Object) -> str:
    return (
        'spec.trialTemplate.trialParameters[0].name: Invalid value: "elsewhere": parameter name: elsewhere in '
        f"spec.trialParameters not found in spec.trialTemplate: {shown_template(obj)}"
    )


def _left_over(placeholder: str) -> Callable[[Object], str]:
    return lambda obj: (
        f'spec.trialTemplate: Invalid value: "": parameters: [${{trialParameters.{placeholder}}}] in '
        f"spec.trialTemplate not found in spec.trialParameters: {_shown_trial_parameters(obj)}"
    )


def _bad_words(obj: Object) -> tuple[str, ...]:
    """The parameter is passed over, so its placeholder is left as well."""
    first = re.findall(r"\$\{trialParameters\.(.+?)\}", shown_template(obj))[0]
    return _WORDS, _left_over(first)(obj)


def _unconvertible(reason: str) -> str:
    return f'{_TEMPLATE}: Invalid value: "": invalid spec.trialTemplate: unable to convert{reason}'


TEMPLATE_REFUSALS = (
    Refusal(
        "no trialTemplate",
        lambda e: e["spec"].pop("trialTemplate"),
        "spec.trialTemplate: Required value: must be specified",
    ),
    Refusal(
        "no primaryContainerName",
        lambda e: template(e).pop("primaryContainerName"),
        "spec.trialTemplate.primaryContainerName: Required value: must be specified",
    ),
    Refusal(
        "no conditions for a kind without defaults",
        _other_kind("Workflow"),
        "spec.trialTemplate: Required value: successCondition and failureCondition must be specified",
    ),
    Refusal(
        "no trialParameters",
        lambda e: template(e).pop("trialParameters"),
        "spec.trialTemplate.trialParameters: Required value: must be specified",
    ),
    Refusal(
        "empty trialParameters",
        lambda e: template(e).update(trialParameters=[]),
        "spec.trialTemplate.trialParameters: Required value: must be specified",
    ),
    Refusal(
        "no template source",
        _without_source,
        "spec.trialTemplate.TrialSource: Required value: spec.trialTemplate.trialSpec or spec.trialTemplate.configMap "
        "must be specified",
    ),
    Refusal(
        "both template sources",
        lambda e: template(e).update(configMap={"configMapName": "a"}),
        "spec.trialTemplate: Required value: only one of spec.trialTemplate.trialSpec or spec.trialTemplate.configMap "
        "can be specified",
    ),
    Refusal(
        "incomplete configMap",
        _config_map(configMapName="a", templatePath="b"),
        "spec.trialTemplate.configMap: Required value: configMapName, configMapNamespace and templatePath must be "
        "specified",
    ),
    Refusal(
        "absent configMap",
        _config_map(configMapName="a", configMapNamespace="default", templatePath="b"),
        'spec.trialTemplate: Invalid value: "": unable to parse spec.trialTemplate: configMap not found: ConfigMap "a" '
        "not found",
    ),
    Refusal("empty trial parameter name", lambda e: first_trial_parameter(e).update(name=""), _bad_words),
    Refusal("brace in a trial parameter name", lambda e: first_trial_parameter(e).update(name="a}"), _bad_words),
    Refusal("no reference", lambda e: first_trial_parameter(e).pop("reference"), _bad_words),
    Refusal("duplicate trial parameter name", _duplicate(reference="${trialSpec.Name}"), _duplicate_texts("name")),
    Refusal("duplicate reference", _duplicate(name="another"), _duplicate_texts("reference")),
    Refusal("unknown reference", lambda e: first_trial_parameter(e).update(reference="nowhere"), _unknown_reference),
    Refusal(
        "unknown metadata reference",
        lambda e: first_trial_parameter(e).update(reference="${trialSpec.Uid}"),
        lambda e: _unknown_reference(e).replace("nowhere", "${trialSpec.Uid}"),
    ),
    Refusal("absent placeholder", lambda e: first_trial_parameter(e).update(name="elsewhere"), _absent_placeholder),
    Refusal(
        "placeholder left over", lambda e: container(e).update(args=["${trialParameters.more}"]), _left_over("more")
    ),
    Refusal(
        "template with a name",
        lambda e: template(e)["trialSpec"].update(metadata={"name": "x"}),
        'spec.trialTemplate: Invalid value: "": metadata.name and metadata.namespace in spec.trialTemplate must be '
        "omitted",
    ),
    Refusal(
        "template with a namespace",
        lambda e: template(e)["trialSpec"].update(metadata={"namespace": "x"}),
        'spec.trialTemplate: Invalid value: "": metadata.name and metadata.namespace in spec.trialTemplate must be '
        "omitted",
    ),
    Refusal(
        "no apiVersion",
        lambda e: template(e)["trialSpec"].pop("apiVersion"),
        "spec.trialTemplate: Required value: APIVersion and Kind in spec.trialTemplate must be specified",
    ),
    Refusal(
        "unknown field of the Job",
        lambda e: job_spec(e).update(backofLimit=0),
        _unconvertible(": /spec/backofLimit - 0 to Job, converted template: {"),
        is_whole=False,
    ),
    Refusal(
        "unknown field of the container",
        lambda e: container(e).update(cmd=["x"]),
        _unconvertible(": /spec/template/spec/containers/0/cmd - [x] to Job, converted template: {"),
        is_whole=False,
    ),
    Refusal(
        "an empty text that the typed Job leaves out",
        lambda e: container(e).update(env=[{"name": "A", "value": ""}]),
        _unconvertible(": /spec/template/spec/containers/0/env/0/value -  to Job, converted template: {"),
        is_whole=False,
    ),
    Refusal(
        "wrong type in the Job",
        lambda e: job_spec(e).update(backoffLimit="0"),
        _unconvertible(" spec.TrialTemplate: map["),
        is_whole=False,
    ),
)

"""The messages of `inference.GRPCInferenceService`, Open Inference Protocol V2.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

from __future__ import annotations

from truekeep.features.wire import messages

SERVICE = "inference.GRPCInferenceService"

_PARAMETER = {
    "bool_param": (1, "parameter_choice|bool"),
    "int64_param": (2, "parameter_choice|int64"),
    "string_param": (3, "parameter_choice|string"),
    "double_param": (4, "parameter_choice|double"),
    "uint64_param": (5, "parameter_choice|uint64"),
}
_CONTENTS = {
    "bool_contents": (1, "*bool"),
    "int_contents": (2, "*int32"),
    "int64_contents": (3, "*int64"),
    "uint_contents": (4, "*uint32"),
    "uint64_contents": (5, "*uint64"),
    "fp32_contents": (6, "*float"),
    "fp64_contents": (7, "*double"),
    "bytes_contents": (8, "*bytes"),
}
_TENSOR = {
    "name": (1, "string"),
    "datatype": (2, "string"),
    "shape": (3, "*int64"),
    "parameters": (4, "map InferParameter"),
    "contents": (5, "InferTensorContents"),
}
_DESCRIPTION = {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "*int64")}

_made = messages(
    "inference",
    {
        "InferParameter": _PARAMETER,
        "InferTensorContents": _CONTENTS,
        "ServerLiveRequest": {},
        "ServerLiveResponse": {"live": (1, "bool")},
        "ServerReadyRequest": {},
        "ServerReadyResponse": {"ready": (1, "bool")},
        "ModelReadyRequest": {"name": (1, "string"), "version": (2, "string")},
        "ModelReadyResponse": {"ready": (1, "bool")},
        "ServerMetadataRequest": {},
        "ServerMetadataResponse": {"name": (1, "string"), "version": (2, "string"), "extensions": (3, "*string")},
        "ModelMetadataRequest": {"name": (1, "string"), "version": (2, "string")},
        "ModelMetadataResponse": {
            "name": (1, "string"),
            "versions": (2, "*string"),
            "platform": (3, "string"),
            "inputs": (4, "*ModelMetadataResponse.TensorMetadata"),
            "outputs": (5, "*ModelMetadataResponse.TensorMetadata"),
            "properties": (6, "map string"),
        },
        "ModelMetadataResponse.TensorMetadata": _DESCRIPTION,
        "ModelInferRequest": {
            "model_name": (1, "string"),
            "model_version": (2, "string"),
            "id": (3, "string"),
            "parameters": (4, "map InferParameter"),
            "inputs": (5, "*ModelInferRequest.InferInputTensor"),
            "outputs": (6, "*ModelInferRequest.InferRequestedOutputTensor"),
            "raw_input_contents": (7, "*bytes"),
        },
        "ModelInferRequest.InferInputTensor": _TENSOR,
        "ModelInferRequest.InferRequestedOutputTensor": {
            "name": (1, "string"),
            "parameters": (2, "map InferParameter"),
        },
        "ModelInferResponse": {
            "model_name": (1, "string"),
            "model_version": (2, "string"),
            "id": (3, "string"),
            "parameters": (4, "map InferParameter"),
            "outputs": (5, "*ModelInferResponse.InferOutputTensor"),
            "raw_output_contents": (6, "*bytes"),
        },
        "ModelInferResponse.InferOutputTensor": _TENSOR,
    },
)

ModelInferRequest = _made["ModelInferRequest"]
ModelInferResponse = _made["ModelInferResponse"]
ModelMetadataRequest = _made["ModelMetadataRequest"]
ModelMetadataResponse = _made["ModelMetadataResponse"]
ModelReadyRequest = _made["ModelReadyRequest"]
ModelReadyResponse = _made["ModelReadyResponse"]
ServerLiveRequest = _made["ServerLiveRequest"]
ServerLiveResponse = _made["ServerLiveResponse"]
ServerMetadataRequest = _made["ServerMetadataRequest"]
ServerMetadataResponse = _made["ServerMetadataResponse"]
ServerReadyRequest = _made["ServerReadyRequest"]
ServerReadyResponse = _made["ServerReadyResponse"]

# The field of InferTensorContents that holds a datatype's values.
CONTENTS = {
    "BOOL": "bool_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    "INT64": "int64_contents",
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

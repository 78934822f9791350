{{/* The files of a folder that its kustomization.yaml lists, as one list of objects: {"objects": [...]}. */}}
{{- define "truekeep.load" -}}
{{- $kustomization := .root.Files.Get (printf "%s/kustomization.yaml" .folder) | fromYaml -}}
{{- $objects := list -}}
{{- range $file := $kustomization.resources -}}
  {{- $text := $.root.Files.Get (printf "%s/%s" $.folder $file) -}}
  {{- if not $text -}}{{- fail (printf "%s/%s is not in the chart" $.folder $file) -}}{{- end -}}
  {{- $text = replace "truekeep-system" $.root.Release.Namespace $text -}}
  {{- range $document := splitList "\n---\n" $text -}}
    {{- $object := fromYaml $document -}}
    {{- if hasKey $object "Error" -}}{{- fail (printf "%s/%s: %s" $.folder $file $object.Error) -}}{{- end -}}
    {{- if $object -}}{{- $objects = append $objects $object -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- dict "objects" $objects | toJson -}}
{{- end -}}

{{/* "yes" for kinds that belong to no namespace. */}}
{{- define "truekeep.ofCluster" -}}
{{- if or (hasPrefix "Cluster" .kind) (hasPrefix "ValidatingAdmissionPolicy" .kind) (has .kind (list "Namespace" "CustomResourceDefinition" "PriorityClass")) -}}yes{{- end -}}
{{- end -}}

{{/* The whole name of an image: what values say, else the manifests' own, from another registry where one is named. */}}
{{- define "truekeep.image" -}}
{{- if .chosen -}}{{ .chosen }}
{{- else if .root.Values.images.registry -}}{{ printf "%s/%s" (trimSuffix "/" .root.Values.images.registry) (trimPrefix "truekeep/" .default) }}
{{- else -}}{{ .default }}
{{- end -}}
{{- end -}}

{{/* The data of the ConfigMap of images, as YAML: manifests/operator/images.env with what values change. */}}
{{- define "truekeep.imagesData" -}}
{{- range $line := splitList "\n" (.Files.Get "files/operator/images.env") -}}
  {{- if contains "=" $line -}}
    {{- $name := (splitn "=" 2 $line)._0 -}}
    {{- $key := $name | trimPrefix "TRUEKEEP_" | trimSuffix "_IMAGE" | lower }}
{{ $name }}: {{ include "truekeep.image" (dict "root" $ "chosen" (index $.Values.images $key) "default" (splitn "=" 2 $line)._1) | quote }}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* The ConfigMap is new with its content, so that the operator restarts with it. */}}
{{- define "truekeep.imagesName" -}}
truekeep-images-{{ include "truekeep.imagesData" . | sha256sum | trunc 10 }}
{{- end -}}

{{/* The operator's Deployment, changed in place as values say. */}}
{{- define "truekeep.operator" -}}
{{- $values := .root.Values -}}
{{- $pod := .object.spec.template.spec -}}
{{- $container := first $pod.containers -}}
{{- $kustomization := .root.Files.Get "files/operator/kustomization.yaml" | fromYaml -}}
{{- $tag := "" -}}
{{- range $kustomization.images -}}{{- if eq .name $container.image -}}{{- $tag = printf ":%s" .newTag -}}{{- end -}}{{- end -}}
{{- $_ := set .object.spec "replicas" $values.replicas -}}
{{- $_ := set $container "image" (include "truekeep.image" (dict "root" .root "chosen" $values.images.operator "default" (printf "%s%s" $container.image $tag))) -}}
{{- $_ := set $container "imagePullPolicy" $values.images.pullPolicy -}}
{{- $_ := set $container "resources" $values.resources -}}
{{- range $source := $container.envFrom -}}
  {{- if $source.configMapRef -}}{{- if eq $source.configMapRef.name "truekeep-images" -}}
    {{- $_ := set $source.configMapRef "name" (include "truekeep.imagesName" $.root) -}}
  {{- end -}}{{- end -}}
{{- end -}}
{{- $settings := deepCopy $values.settings -}}
{{- if $values.watchNamespaces -}}
  {{- $_ := set $settings "TRUEKEEP_WATCH_NAMESPACES" (join "," $values.watchNamespaces) -}}
{{- end -}}
{{- if $values.images.pullSecrets -}}
  {{- $secrets := list -}}
  {{- range $values.images.pullSecrets -}}{{- $secrets = append $secrets (dict "name" .) -}}{{- end -}}
  {{- $_ := set $pod "imagePullSecrets" $secrets -}}
  {{- $_ := set $settings "TRUEKEEP_IMAGE_PULL_SECRETS" (join "," $values.images.pullSecrets) -}}
{{- end -}}
{{- range $name, $value := $settings -}}
  {{- $_ := set $container "env" (append $container.env (dict "name" $name "value" (toString $value))) -}}
{{- end -}}
{{- $about := .object.spec.template.metadata -}}
{{- with $values.podAnnotations -}}{{- $_ := set $about "annotations" (merge (dict) ($about.annotations | default dict) .) -}}{{- end -}}
{{- with $values.podLabels -}}{{- $_ := set $about "labels" (merge (dict) $about.labels .) -}}{{- end -}}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" -}}
  {{- with index $values $field -}}{{- $_ := set $pod $field . -}}{{- end -}}
{{- end -}}
{{- end -}}

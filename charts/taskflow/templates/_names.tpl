{{/* Names are truncated to 40 characters so that the longest suffix fits into a label. */}}
{{- define "taskflow.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "taskflow.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Selector labels of a component's pods; takes (list $ component). They never change between versions. */}}
{{- define "taskflow.selector" -}}
app.kubernetes.io/name: {{ include "taskflow.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object; takes (list $ component). */}}
{{- define "taskflow.labels" -}}
{{- $root := index . 0 -}}
{{ include "taskflow.selector" . }}
app.kubernetes.io/part-of: taskflow
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Reference of an image of TaskFlow; takes (list $ image). */}}
{{- define "taskflow.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{/* Name of a component's ServiceAccount; takes (list $ component account). */}}
{{- define "taskflow.account" -}}
{{- $account := index . 2 -}}
{{- default (printf "%s-%s" (include "taskflow.fullname" (index . 0)) (index . 1)) $account.name -}}
{{- end -}}

{{- define "taskflow.devSecret" -}}{{ include "taskflow.fullname" . }}-dev-services{{- end -}}

{{- define "taskflow.tokenSecret" -}}
{{- default (printf "%s-token-key" (include "taskflow.fullname" .)) .Values.operator.tokenKey.existingSecret -}}
{{- end -}}

{{/*
Name of a Job; takes (list $ component spec). The template of a Job is immutable, so whatever reaches its spec makes
another name, and each revision has its own Job. One that a former release of this name left would be taken for done.
*/}}
{{- define "taskflow.jobName" -}}
{{- $root := index . 0 -}}
{{- $prefix := printf "%s-%s" (include "taskflow.fullname" $root) (index . 1) -}}
{{- $content := printf "%d %s" (int $root.Release.Revision) (index . 2) -}}
{{- $name := printf "%s-%s" $prefix ($content | sha256sum | trunc 10) -}}
{{- with lookup "batch/v1" "Job" $root.Release.Namespace $name -}}
  {{- $name = printf "%s-%s" $prefix (printf "%s %s" $content .metadata.uid | sha256sum | trunc 10) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* Annotations by which Argo CD runs a Job with each synchronization and does not miss it afterwards. */}}
{{- define "taskflow.jobAnnotations" -}}
argocd.argoproj.io/hook: Sync
argocd.argoproj.io/hook-delete-policy: BeforeHookCreation
{{- end -}}

{{/* Seconds that a finished Job stays: longer than Helm waits for an installation, which asks for its Jobs until the end. */}}
{{- define "taskflow.jobTtl" -}}7200{{- end -}}

{{/* Refuses values that contradict each other and says how to fix them. */}}
{{- define "taskflow.check" -}}
{{- $v := .Values -}}
{{- if $v.devServices.enabled -}}
  {{- if or $v.externalDatabase.existingSecret $v.externalRedis.existingSecret $v.externalS3.existingSecret $v.externalS3.endpoint -}}
    {{- fail "devServices.enabled and an external service are both set: choose one of them" -}}
  {{- end -}}
  {{- if eq $v.migrations.mode "hook" -}}
    {{- fail "migrations.mode=hook runs before anything is installed, so it needs an existing database: use job with devServices" -}}
  {{- end -}}
  {{- if or (not $v.provisioner.enabled) (ne $v.provisioner.s3Logins "minio") -}}
    {{- fail "provisioner: with devServices it makes the users of their Redis and MinIO: leave enabled=true and s3Logins=minio" -}}
  {{- end -}}
{{- else -}}
  {{- $how := ", or devServices.enabled=true to try TaskFlow" -}}
  {{- if not $v.externalDatabase.existingSecret }}{{ fail (printf "externalDatabase.existingSecret: expected the name of a Secret, found none%s" $how) }}{{ end -}}
  {{- if not $v.externalRedis.existingSecret }}{{ fail (printf "externalRedis.existingSecret: expected the name of a Secret, found none%s" $how) }}{{ end -}}
  {{- if not $v.externalS3.existingSecret }}{{ fail (printf "externalS3.existingSecret: expected the name of a Secret, found none%s" $how) }}{{ end -}}
  {{- if and $v.provisioner.enabled (not $v.provisioner.existingSecret) }}{{ fail "provisioner.existingSecret: expected the name of a Secret with an administrator's logins of Redis and the object store, found none; or set provisioner.enabled=false and make the Secret taskflow-worker in each namespace yourself" }}{{ end -}}
  {{- if not $v.externalS3.endpoint }}{{ fail (printf "externalS3.endpoint: expected http(s)://host:port, found none%s" $how) }}{{ end -}}
{{- end -}}
{{- if and $v.api.ingress.enabled $v.api.httpRoute.enabled }}{{ fail "api.ingress and api.httpRoute are both enabled: choose one of them" }}{{ end -}}
{{- if and $v.api.ingress.enabled (not $v.api.ingress.hosts) }}{{ fail "api.ingress.hosts: expected at least one host name, found none" }}{{ end -}}
{{- if and $v.api.httpRoute.enabled (not $v.api.httpRoute.parentRefs) }}{{ fail "api.httpRoute.parentRefs: expected at least one gateway, found none" }}{{ end -}}
{{- if and $v.api.oidc.issuer (not $v.api.oidc.audience) }}{{ fail "api.oidc.audience: expected the client's id at the issuer, found none" }}{{ end -}}
{{- if and $v.api.register.enabled (not $v.api.register.existingSecret) }}{{ fail "api.register.existingSecret: expected the name of a Secret with a signing key, found none" }}{{ end -}}
{{- if and $v.webhooks.enabled (not $v.webhooks.existingSecret) }}{{ fail "webhooks.existingSecret: expected the name of a Secret with an encryption key, found none" }}{{ end -}}
{{- if and $v.metrics.podMonitor.enabled $v.metrics.serviceMonitor.enabled }}{{ fail "metrics.podMonitor and metrics.serviceMonitor are both enabled: everything would be counted twice, choose one of them" }}{{ end -}}
{{- if $v.networkPolicy.enabled -}}
  {{- $rules := dict "worker.egress" $v.worker.egress -}}
  {{- if not $v.devServices.enabled -}}
    {{- range $name, $service := dict "externalRedis" $v.externalRedis "externalS3" $v.externalS3 -}}
      {{- if not $service.egress.to }}{{ fail (printf "%s.egress.to: expected where it is, such as [{ipBlock: {cidr: 10.20.0.7/32}}], found none; networkPolicy.enabled lets workers reach nothing else" $name) }}{{ end -}}
    {{- end -}}
  {{- end -}}
  {{- if $v.webhooks.enabled -}}
    {{- $rules = merge $rules (dict "webhooks.egress" $v.webhooks.egress "webhooks.databaseEgress" $v.webhooks.databaseEgress) -}}
    {{- if not (or $v.webhooks.databaseEgress $v.devServices.enabled) }}{{ fail "webhooks.databaseEgress: expected where the database is, found none; networkPolicy.enabled lets notifiers reach nothing else" }}{{ end -}}
  {{- end -}}
  {{- range $name, $found := $rules -}}
    {{- range $found -}}
      {{- if not .to }}{{ fail (printf "%s: expected `to` in each rule, found %s; any address is {ipBlock: {cidr: 0.0.0.0/0}}" $name (toJson .)) }}{{ end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if $v.watchNamespaces -}}
  {{- range $v.workerNamespaces -}}
    {{- if not (has . $v.watchNamespaces) }}{{ fail (printf "workerNamespaces: expected some of watchNamespaces (%s), found %s" (join ", " $v.watchNamespaces) .) }}{{ end -}}
  {{- end -}}
{{- end -}}
{{- if and $v.workerPool.enabled (not (has $v.workerPool.namespace $v.workerNamespaces)) }}{{ fail (printf "workerPool.namespace: expected one of workerNamespaces (%s), found %s" (join ", " $v.workerNamespaces) $v.workerPool.namespace) }}{{ end -}}
{{- end -}}

{{/* Environment by the Secret that holds it; each takes $. */}}
{{- define "taskflow.env.database" -}}
- name: TASKFLOW_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ ternary (include "taskflow.devSecret" .) .Values.externalDatabase.existingSecret .Values.devServices.enabled }}
      key: {{ ternary "database-url" .Values.externalDatabase.key .Values.devServices.enabled }}
{{- if not .Values.devServices.enabled }}
- name: TASKFLOW_DATABASE_CA
  valueFrom: {secretKeyRef: {name: {{ .Values.externalDatabase.existingSecret }}, key: {{ .Values.externalDatabase.caKey }}, optional: true}}
{{- end }}
{{- end -}}

{{- define "taskflow.env.redis" -}}
- name: TASKFLOW_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ ternary (include "taskflow.devSecret" .) .Values.externalRedis.existingSecret .Values.devServices.enabled }}
      key: {{ ternary "redis-url" .Values.externalRedis.key .Values.devServices.enabled }}
{{- include "taskflow.env.redisAuthorities" . }}
{{- end -}}

{{- define "taskflow.env.redisAuthorities" -}}
{{- if not .Values.devServices.enabled }}
- name: TASKFLOW_REDIS_CA
  valueFrom: {secretKeyRef: {name: {{ .Values.externalRedis.existingSecret }}, key: {{ .Values.externalRedis.caKey }}, optional: true}}
{{- end }}
{{- end -}}

{{- define "taskflow.env.cacheMarks" -}}
{{- $own := .Values.cacheRedis.existingSecret -}}
- name: TASKFLOW_CACHE_URL
  valueFrom:
    secretKeyRef:
      name: {{ $own | default (ternary (include "taskflow.devSecret" .) .Values.externalRedis.existingSecret .Values.devServices.enabled) }}
      key: {{ ternary .Values.cacheRedis.key (ternary "redis-url" .Values.externalRedis.key .Values.devServices.enabled) (ne $own "") }}
{{- end -}}

{{- define "taskflow.env.broker" -}}
- name: TASKFLOW_API_BROKER_URL
  valueFrom:
    secretKeyRef:
      name: {{ ternary (include "taskflow.devSecret" .) .Values.externalRedis.existingSecret .Values.devServices.enabled }}
      key: {{ ternary "redis-api-url" .Values.externalRedis.apiKey .Values.devServices.enabled }}
      optional: true
{{- include "taskflow.env.redisAuthorities" . }}
{{- $own := .Values.cacheRedis.existingSecret }}
{{- range list "TASKFLOW_LIMITS_URL" "TASKFLOW_CACHE_URL" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $own | default (ternary (include "taskflow.devSecret" $) $.Values.externalRedis.existingSecret $.Values.devServices.enabled) }}
      key: {{ ternary $.Values.cacheRedis.key (ternary "redis-api-url" $.Values.externalRedis.apiKey $.Values.devServices.enabled) (ne $own "") }}
      {{- if not $own }}
      optional: true
      {{- end }}
{{- end }}
{{- end -}}

{{- define "taskflow.env.s3Address" -}}
- name: TASKFLOW_S3_ENDPOINT
  value: {{ ternary (printf "http://%s-minio.%s.svc:9000" (include "taskflow.fullname" .) .Release.Namespace) .Values.externalS3.endpoint .Values.devServices.enabled | quote }}
{{- with .Values.externalS3.publicEndpoint }}
- name: TASKFLOW_S3_PUBLIC_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: TASKFLOW_S3_BUCKET
  value: {{ .Values.externalS3.bucket | quote }}
- name: TASKFLOW_S3_REGION
  value: {{ .Values.externalS3.region | quote }}
{{- if not .Values.devServices.enabled }}
- name: TASKFLOW_S3_CA
  valueFrom: {secretKeyRef: {name: {{ .Values.externalS3.existingSecret }}, key: {{ .Values.externalS3.caKey }}, optional: true}}
{{- end }}
{{- end -}}

{{- define "taskflow.env.s3" -}}
{{- $dev := .Values.devServices.enabled -}}
{{- $secret := ternary (include "taskflow.devSecret" .) .Values.externalS3.existingSecret $dev -}}
{{ include "taskflow.env.s3Address" . }}
- name: TASKFLOW_S3_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ ternary "s3-access-key" .Values.externalS3.accessKeyKey $dev }}}}
- name: TASKFLOW_S3_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ ternary "s3-secret-key" .Values.externalS3.secretKeyKey $dev }}}}
{{- end -}}

{{/* Volume with files of the Secrets of external services, named as the variables, which they win over. Kubernetes
updates the files, so that credentials can change under a running process. Takes a list of $ and a dictionary of the
variables, each with its Secret and key. */}}
{{- define "taskflow.secretFiles" -}}
{{- $root := index . 0 -}}
{{- if not $root.Values.devServices.enabled }}
- name: credentials
  projected:
    sources:
      {{- range $name, $where := index . 1 }}
      {{- if index $where 0 }}
      - secret:
          name: {{ index $where 0 }}
          items: [{key: {{ index $where 1 }}, path: {{ $name }}}]
          optional: true
      {{- end }}
      {{- end }}
{{- end }}
{{- end -}}

{{- define "taskflow.env.secretFiles" -}}
{{- if not .Values.devServices.enabled }}
- name: TASKFLOW_SECRETS_DIR
  value: /var/run/secrets/taskflow
{{- end }}
{{- end -}}

{{- define "taskflow.secretMount" -}}
{{- if not .Values.devServices.enabled }}
- {name: credentials, mountPath: /var/run/secrets/taskflow, readOnly: true}
{{- end }}
{{- end -}}

{{/* Egress rule for DNS. */}}
{{- define "taskflow.dnsEgress" -}}
ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
{{- end -}}

{{/* Egress rule for a development service; takes a list of $, its component and its port. */}}
{{- define "taskflow.devEgress" -}}
{{- $root := index . 0 -}}
ports: [{protocol: TCP, port: {{ index . 2 }}}]
to:
  - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $root.Release.Namespace }}}}
    podSelector: {matchLabels: {{ include "taskflow.selector" (list $root (index . 1)) | fromYaml | toJson }}}
{{- end -}}

{{/* Egress rule for a service of your own; takes its value `egress`. */}}
{{- define "taskflow.externalEgress" -}}
ports:
{{- range .ports }}
  - {protocol: TCP, port: {{ . }}}
{{- end }}
to: {{- toYaml .to | nindent 2 }}
{{- end -}}

{{- define "taskflow.env.webhooks" -}}
{{- with .Values.webhooks }}
{{- if .enabled -}}
- name: TASKFLOW_WEBHOOKS_ENABLED
  value: "true"
- name: TASKFLOW_WEBHOOKS_KEY
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}}
- name: TASKFLOW_WEBHOOKS_ALLOW_HTTP
  value: {{ .allowHttp | quote }}
- name: TASKFLOW_WEBHOOKS_PORTS
  value: {{ join "," .ports | quote }}
{{- with .allowed }}
- name: TASKFLOW_WEBHOOKS_ALLOWED
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "taskflow.env.logging" -}}
- name: TASKFLOW_LOG_LEVEL
  value: {{ .Values.logging.level }}
- name: TASKFLOW_LOG_FORMAT
  value: {{ .Values.logging.format }}
{{- end -}}

{{/* Scheduling and security of a workload's pod; takes (list $ component workload). */}}
{{- define "taskflow.pod" -}}
{{- $root := index . 0 -}}
{{- $workload := index . 2 -}}
serviceAccountName: {{ include "taskflow.account" (list $root (index . 1) $workload.serviceAccount) }}
enableServiceLinks: false
securityContext: {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workload.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workload.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workload.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $workload.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if $workload.topologySpread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels: {{- include "taskflow.selector" (list $root (index . 1)) | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Makes the schema of the history, or waits until you have; takes $. Pods that come up together take turns. */}}
{{- define "taskflow.waitForSchema" -}}
- name: wait-for-schema
  image: {{ include "taskflow.image" (list . .Values.operator.image) }}
  imagePullPolicy: {{ .Values.operator.image.pullPolicy }}
  command: [python, -m, taskflow_core.store.migrate, --patience, "86400", {{ ternary "wait" "ensure" (eq .Values.migrations.mode "none") }}]
  env: {{- include "taskflow.env.database" . | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  securityContext: {{- toYaml .Values.containerSecurityContext | nindent 4 }}
  resources: {{- toYaml .Values.migrations.resources | nindent 4 }}
{{- end -}}

{{/*
Annotation that replaces a pod at an upgrade after one of its Secrets has changed; takes (list $ names). It has no part of
the Secret's data. Secrets that the chart generates never change. Without access to the cluster (`helm template`, Argo CD)
there is none.
*/}}
{{- define "taskflow.credentials" -}}
{{- $root := index . 0 -}}
{{- $versions := list -}}
{{- range (index . 1) | compact | uniq -}}
  {{- with lookup "v1" "Secret" $root.Release.Namespace . -}}
    {{- $versions = append $versions (printf "%s/%s" .metadata.uid .metadata.resourceVersion) -}}
  {{- end -}}
{{- end -}}
{{- with $versions -}}
checksum/credentials: {{ join " " . | sha256sum }}
{{- end -}}
{{- end -}}

{{/* Whether the development services have volumes: `true` or empty; takes $. */}}
{{- define "taskflow.devVolumes" -}}
{{- $wanted := .Values.devServices.persistence.enabled | toString -}}
{{- if ne $wanted "auto" -}}
  {{- if eq $wanted "true" }}true{{ end -}}
{{- else if not (lookup "v1" "Namespace" "" "kube-system") -}}
  {{- /* No access to the cluster. */ -}}
  true
{{- else if .Values.devServices.persistence.storageClass -}}
  true
{{- else -}}
  {{- $present := lookup "apps/v1" "StatefulSet" .Release.Namespace (printf "%s-postgresql" (include "taskflow.fullname" .)) -}}
  {{- if $present -}}
    {{- /* What a StatefulSet claims cannot be changed. */ -}}
    {{- if $present.spec.volumeClaimTemplates }}true{{ end -}}
  {{- else -}}
    {{- $default := list -}}
    {{- range (lookup "storage.k8s.io/v1" "StorageClass" "" "").items -}}
      {{- if eq "true" (get (.metadata.annotations | default dict) "storageclass.kubernetes.io/is-default-class") -}}
        {{- $default = append $default .metadata.name -}}
      {{- end -}}
    {{- end -}}
    {{- if $default }}true{{ end -}}
  {{- end -}}
{{- end -}}
{{- end -}}

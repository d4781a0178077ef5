{{- /* The name of the application: the value of app.kubernetes.io/name. */ -}}
{{- define "operator.name" -}}
{{- regexReplaceAll "-+$" (.Values.nameOverride | default .Chart.Name | trunc 63) "" -}}
{{- end -}}

{{- /* The name of what the release creates. A release that is called like the application, or like its beginning
(`itwin`), is not named twice. It leaves room for the longest suffix. */ -}}
{{- define "operator.fullname" -}}
{{- $name := include "operator.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- else if hasPrefix (printf "%s-" .Release.Name) $name -}}
{{- $full = $name -}}
{{- end -}}
{{- regexReplaceAll "-+$" (.Values.fullnameOverride | default $full | trunc 50) "" -}}
{{- end -}}

{{- define "operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "operator.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- /* The user that the API server sees. */ -}}
{{- define "operator.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "operator.serviceAccountName" . }}
{{- end -}}

{{- /* Names are quoted here and in all templates: `2024`, `no` and `1e5` are names, and YAML reads something else. */ -}}
{{- define "operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- /* One map of several: the first that has a key decides. `merge` would replace an empty value, such as that of a
label. */ -}}
{{- define "operator.merged" -}}
{{- $merged := dict -}}
{{- range . -}}
{{- range $key, $value := . -}}
{{- if not (hasKey $merged $key) -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $merged -}}
{{- end -}}

{{- /* One map, so that a label that the user sets too appears once. */ -}}
{{- define "operator.labels" -}}
{{- $labels := include "operator.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" (.Chart.AppVersion | toString) -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- include "operator.merged" (list $labels .Values.commonLabels) -}}
{{- end -}}

{{- /* The same with those of one object. They replace others, except what selects pods and the Service. */ -}}
{{- define "operator.labelsWith" -}}
{{- $context := index . 0 -}}
{{- include "operator.merged" (list (include "operator.selectorLabels" $context | fromYaml) (index . 1) (include "operator.labels" $context | fromYaml)) -}}
{{- end -}}

{{- define "operator.image" -}}
{{- .Values.image.repository -}}
{{- if or .Values.image.tag (not .Values.image.digest) -}}
:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- with .Values.image.digest -}}
@{{ . }}
{{- end -}}
{{- end -}}

{{- define "operator.subject" -}}
- kind: ServiceAccount
  name: {{ include "operator.serviceAccountName" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{- /* Rules for namespaced resources, and which code needs them. */ -}}
{{- define "operator.namespacedRules" -}}
# src/controller/watches.rs
- apiGroups: [credentials.itwin.dev]
  resources: [itwinservicecredentials]
  verbs: [list, watch]
# src/controller/status_writer.rs
- apiGroups: [credentials.itwin.dev]
  resources: [itwinservicecredentials/status]
  verbs: [update, patch]
# src/observe, src/act/secret_writer.rs. Never delete: garbage collection does that.
- apiGroups: [""]
  resources: [secrets]
  {{- if .Values.watchSecrets }}
  verbs: [get, list, watch, create, patch]
  {{- else }}
  verbs: [get, create, patch]
  {{- end }}
# src/controller/attempt.rs, if an authority has allowedNamespaces. A Role allows it for its own namespace.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
{{ include "operator.eventRules" . }}
{{- if .Values.rolloutRestart.enabled }}
# src/act/rollout.rs, if a credential has rolloutRestartTargets
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [get, patch]
- apiGroups: [argoproj.io]
  resources: [rollouts]
  verbs: [get, patch]
{{- end }}
{{- end -}}

{{- /* Rules for events. */ -}}
{{- define "operator.eventRules" -}}
# src/report/publisher.rs
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- /* Rules for authorities, which have no namespace. */ -}}
{{- define "operator.clusterRules" -}}
# src/controller/watches.rs
- apiGroups: [credentials.itwin.dev]
  resources: [itwinauthorities]
  verbs: [list, watch]
# src/controller/authorities.rs
- apiGroups: [credentials.itwin.dev]
  resources: [itwinauthorities/status]
  verbs: [patch]
{{- end -}}

{{- /* "yes" if this text or list names another namespace for the Lease than that of the pod. */ -}}
{{- define "operator.leaseIsElsewhere" -}}
{{- if regexMatch "--lease-namespace|ITWIN_OPERATOR_LEASE_NAMESPACE" (toJson .) -}}
yes
{{- end -}}
{{- end -}}

{{- /* One probe: the settings without `enabled`, and where it asks. */ -}}
{{- define "operator.probe" -}}
httpGet:
  path: {{ .path }}
  port: metrics
{{ toYaml (omit .probe "enabled") }}
{{- end -}}

{{- /* The names of the variables that the user sets, as JSON. */ -}}
{{- define "operator.extraNames" -}}
{{- $names := list -}}
{{- range .Values.extraEnv -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{- /* The environment: proxies, then what the user adds, which replaces variables of the chart. A name that is there twice
is refused by an apply on the server. */ -}}
{{- define "operator.env" -}}
{{- $env := list -}}
{{- $names := include "operator.extraNames" . | fromJsonArray -}}
{{- with .Values.proxy.httpsProxy -}}
{{- $env = append $env (dict "name" "HTTPS_PROXY" "value" .) -}}
{{- end -}}
{{- /* the proxy may be a variable that the user sets, as from a Secret */ -}}
{{- $proxied := not (not .Values.proxy.httpsProxy) -}}
{{- range $names -}}
{{- $proxied = or $proxied (has . (list "HTTPS_PROXY" "https_proxy" "ALL_PROXY" "all_proxy")) -}}
{{- end -}}
{{- if and $proxied .Values.proxy.noProxy (not (has "no_proxy" $names)) -}}
{{- $env = append $env (dict "name" "NO_PROXY" "value" .Values.proxy.noProxy) -}}
{{- end -}}
{{- /* as in the Dockerfile, for images that were built in another way */ -}}
{{- $env = append $env (dict "name" "RES_OPTIONS" "value" "timeout:1 attempts:3") -}}
{{- $all := list -}}
{{- range $env -}}
{{- if not (has .name $names) -}}
{{- $all = append $all . -}}
{{- end -}}
{{- end -}}
{{- toYaml (concat $all (.Values.extraEnv | default list)) -}}
{{- end -}}

{{- /* The port of a URL: the one that it names, or that of its scheme. An error of urlParse would show the password
that the URL of a proxy may contain. */ -}}
{{- define "operator.port" -}}
{{- $host := regexFind "^[a-zA-Z0-9]+://[^/?#]*" . -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (ternary "80" "443" (lower . | hasPrefix "http://")) -}}
{{- end -}}

{{- /* "yes" if the chart does not know the port of a proxy: the value of this variable is elsewhere. */ -}}
{{- define "operator.proxyIsElsewhere" -}}
{{- if has (lower .name) (list "https_proxy" "all_proxy") -}}
{{- if or .valueFrom (regexMatch "[$][(][^@]*$" (toString .value)) -}}
yes
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The URLs of proxies whose values are known, as JSON. */ -}}
{{- define "operator.proxies" -}}
{{- $urls := list -}}
{{- if not (has "HTTPS_PROXY" (include "operator.extraNames" . | fromJsonArray)) -}}
{{- $urls = compact (list (trim .Values.proxy.httpsProxy)) -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if and (has (lower .name) (list "https_proxy" "all_proxy")) .value (not (include "operator.proxyIsElsewhere" .)) -}}
{{- $urls = append $urls (toString .value | trim) -}}
{{- end -}}
{{- end -}}
{{- /* a proxy may be named without a scheme */ -}}
{{- $complete := list -}}
{{- range $urls -}}
{{- $complete = append $complete (ternary . (printf "http://%s" .) (contains "://" .)) -}}
{{- end -}}
{{- toJson ($complete | uniq) -}}
{{- end -}}

{{- /* The ports at which the operator reaches authorities: those of `authorities` and of the value, as JSON. */ -}}
{{- define "operator.authorityPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.egress.authorities.ports -}}
{{- $ports = append $ports (int . | toString) -}}
{{- end -}}
{{- range .Values.authorities -}}
{{- range list (get (. | default dict) "issuer") (get (. | default dict) "tokenEndpoint") (get (. | default dict) "jwksUri") -}}
{{- if . -}}
{{- $ports = append $ports (include "operator.port" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson ($ports | default (list "443") | uniq | sortAlpha) -}}
{{- end -}}

{{- /* The authorities that Helm 3 compares with those of the next revision, as the Deployment of a release records them.
While their CRD is part of the same release they are hooks, which it does not compare. */ -}}
{{- define "operator.ordinaryAuthorities" -}}
{{- $names := list -}}
{{- if or (not .Values.crds.enabled) (.Capabilities.APIVersions.Has "credentials.itwin.dev/v1alpha1/ITwinAuthority") -}}
{{- range $name, $spec := .Values.authorities -}}
{{- if $spec -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join " " $names -}}
{{- end -}}

{{- /* "no" if the deployed revision of the release does not contain an authority that exists. Helm compares with that
revision. The Deployment records what the last revision contained; after an upgrade that failed, that is not the deployed
one, of which only the number is known, and the first one may have created hooks. */ -}}
{{- define "operator.wasPartOfTheRelease" -}}
{{- $context := .context -}}
{{- $namespace := $context.Release.Namespace -}}
{{- $deployment := lookup "apps/v1" "Deployment" $namespace (include "operator.fullname" $context) -}}
{{- $recorded := dig "metadata" "annotations" dict $deployment | default dict -}}
{{- $isRecorded := hasKey $recorded "credentials.itwin.dev/authorities" -}}
{{- $mayBeHook := false -}}
{{- if hasKey (.live.metadata.annotations | default dict) "helm.sh/hook" -}}
{{- if eq (int $context.Release.Revision) 2 -}}
{{- $mayBeHook = not $isRecorded -}}
{{- else -}}
{{- /* where Helm stores its releases elsewhere, there are none */ -}}
{{- range (lookup "v1" "Secret" $namespace "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "owner") "helm") (eq (get $labels "name") $context.Release.Name) (eq (get $labels "status") "deployed") -}}
{{- $mayBeHook = eq (get $labels "version") "1" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $mayBeHook -}}
no
{{- else if $isRecorded -}}
{{- ternary "" "no" (has .name (splitList " " (get $recorded "credentials.itwin.dev/authorities"))) -}}
{{- end -}}
{{- end -}}

{{- /* The fields that restrict an authority and are not those of the default. Where Helm applies on the server, what
others added to its spec stays. Otherwise nothing shows who wrote a value first: Helm may remove it. */ -}}
{{- define "operator.restrictions" -}}
{{- $found := list -}}
{{- $spec := dig "spec" dict .live -}}
{{- $fields := dig "properties" dict .schema -}}
{{- $managed := dig "metadata" "managedFields" list .live -}}
{{- range $field := list "allowedNamespaces" "allowedScopes" "allowedAudiences" "allowedGrantTypes" "audiences" -}}
{{- $value := get $spec $field -}}
{{- $default := get (get $fields $field | default dict) "default" -}}
{{- if and (hasKey $spec $field) (ne (toJson $value) "{}") (ne (toJson $value) (toJson $default)) -}}
{{- $stays := false -}}
{{- range $managed -}}
{{- $written := dig "fieldsV1" "f:spec" dict . -}}
{{- if and (eq .operation "Apply") (hasKey $written "f:issuer") (not (hasKey $written (printf "f:%s" $field))) -}}
{{- $stays = true -}}
{{- end -}}
{{- end -}}
{{- if not $stays -}}
{{- $found = append $found $field -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join ", " $found -}}
{{- end -}}

{{- /* "yes" if an object has what is wanted. It may have more: what the API server adds, or what a user added; with
`whole`, only defaults of its CRD. */ -}}
{{- define "operator.sameSpec" -}}
{{- $live := .live -}}
{{- $same := true -}}
{{- $fields := dig "properties" dict .schema -}}
{{- range $key, $value := .wanted -}}
{{- $found := get $live $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $found) -}}
{{- $part := dict "wanted" $value "live" $found "schema" (get $fields $key | default dict) "whole" $.whole -}}
{{- $same = and $same (eq (include "operator.sameSpec" $part) "yes") -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $same = and $same (hasKey $live $key) (eq (toJson $value) (toJson $found)) -}}
{{- end -}}
{{- end -}}
{{- if .whole -}}
{{- range $key, $value := $live -}}
{{- $default := get (get $fields $key | default dict) "default" -}}
{{- if not (or (hasKey $.wanted $key) (eq (toJson $value) (toJson $default))) -}}
{{- $same = false -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- ternary "yes" "" $same -}}
{{- end -}}

{{- define "operator.affinity" -}}
{{- if .Values.affinity }}
{{- toYaml .Values.affinity }}
{{- else if eq .Values.podAntiAffinity "soft" }}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "operator.selectorLabels" . | nindent 12 }}
{{- else if eq .Values.podAntiAffinity "hard" }}
podAntiAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "operator.selectorLabels" . | nindent 10 }}
{{- end }}
{{- end -}}

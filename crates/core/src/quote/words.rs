//! The words that are shown of a text of the API server: those by which Kubernetes, policies and network libraries say
//! why a request is refused.

/// All of them, in lower case and in order. A token that has one has it by chance.
pub(super) const WORDS: &str = "
    a abort aborted about above absent accept accepted accepts access accident account accounts across action actions
    active add added adding additional address admin administrator administrators admins admission admissionreview
    after again against agent agents all allow allowed allowing allowlist allows alphanumeric already also always an
    and annotated annotation annotations another any api apis apiserver app application applications applied apply
    applying approval approve approved apps are as ask asked assigned associated at attach attached attempt attempting
    attribute attributes audit authenticate authenticated authentication authorities authority authorization authorize
    authorized available avoid awaiting away backend bad base based bastion be became because become been before begin
    begins behind being below best between bind binding bindings block blocked blocklist blocks body both bound budget
    build bundle business busy but by bytes cache call called calling calls can cancelled cannot capacity case cases
    cause cel central cert certificate certificates chain change changed changes changing character characters check
    checked checks class classification clean client clients closed cluster clusterpolicy clusters code com comes
    company compliance compliant condition conditions confidential config configmap configmaps configuration
    configured conflict conflicts connect connected connection connections consist constraint constraints
    constrainttemplate contact contacted contacting contain contained container containers containing contains content
    contents context contract control controller controllers convention conventions core correct cost could count
    crash create created creates creating creation credential credentials cross current currently custom daemonset
    daemonsets dashboard data database date day days deadline decode decoded default defaults define defined delete
    deleted deletes deleting deletion denied denies deny denying denylist department deploy deployed deployment
    deployments deploys deprecated describe described description dev developer developers development dial did differ
    different digit digits directly disabled disallow disallowed dns do document documentation documents does domain
    domains dry due duplicate duplicated during each edit edited effect either email emergency empty enable enabled
    encode encoded encoding encrypted encryption end ended endpoint endpoints ends enforce enforced enforcement engine
    ensure entity entries entry env environment environments eof equal equals error errors escalate escalation etcd
    etcdserver evaluate evaluated evaluation event events every exact exactly exceed exceeded exceeds except exception
    exceptions executed execution exemption exhausted exist existing exists expect expected expired expires expiring
    expiry explicit explicitly expose exposed expression expressions external fail failed failing fails failure
    failures false feature features federal few field fields file files filter finalizer finalizers find finished
    first follow followed following follows for forbidden forbids form format found free freeze from frontend frozen
    full further gatekeeper gateway general generate generated get given gives go good got governance grant granted
    group groups guideline guidelines had handle handled handler handshake has have header headers helm help here high
    host hosts hour hours how however http https human id identifier identifiers identity if ignore ignored illegal
    image images immutable implemented in include included includes including incorrect index info information ingress
    initialize inject injected injection input inside install installed instance instances instead integer integers
    intended internal internet into invalid io ip is issue issued issuer issues istio it item items its itself itwin
    itwinauthorities itwinauthority itwinservicecredential itwinservicecredentials job jobs json jwt k8s keep keeping
    key keys kind kinds know known kube kubectl kubelet kubernetes kyverno label labelled labels large larger last
    later latest leader learn lease leases least leave left length less letter letters level like limit limited limits
    line lines linkerd list listed listen lists lived load local location lock locked long longer longest look lookup
    lost low lower lowercase machine made maintained maintenance make makes manage managed management manager managers
    mandatory manifest manifests many map mapping maps match matched matches matching maximum may me means member
    memory mesh message messages metadata method methods middle might min minimum minute minutes mismatch missing mode
    model modification modified modify module more most mount mounted must mutate mutating
    mutatingwebhookconfiguration mutation my name named names namespace namespaced namespaces namespaceselector naming
    need needed needs network never new next nil no node nodes non none nor normal not nothing notice now null number
    numbers oauth object objects occurred of off office ok old older omit on once one ones only opa opaque open
    operation operations operator operators ops option optional or order organization organizational origin original
    other others otherwise our out outside over overloaded overridden override own owned owner owners ownership page
    parameter parameters parse parsed parsing part parts password passwords patch patched path pattern patterns
    pending per perform performed period permission permissions permit permitted place plain plaintext plan platform
    please pod pods podsecurity point policies policy pool port ports possible post prefix prefixed present prevent
    prevented previous private privileged problem process processing prod production profile profiles prohibited
    project projects proper properties property protected protection protocol provide provided provider provides
    providing proxy public pull purpose put qualified quality quantity query quota quotas quote quoted random range
    rate raw reach reached read reader readers reading ready realm reason reasons receive received record records
    refer reference referenced references refers refuse refused regex region register registered registration registry
    rego regular reject rejected rejects related release remote remove removed removing replace replaced replica
    replicas replicaset replicasets report reported repository request requested requesting requests require required
    requirement requirements requires reserved reset resolve resolved resource resourcequota resources response
    responsible rest restart restarted restarting restarts restrict restricted restriction restrictions result results
    retries retrieving retry retrying return returned review revision rfc right role roles rolled rolling rollout
    rollouts root rotate rotated rotation route rule rules run running runs runtime same satisfied satisfies satisfy
    schedule scheduled schema schemas scope scopes search second seconds secret secrets section secure security see
    select selected selector selectors send sends sensitive sent separated server servers service serviceaccount
    serviceaccounts services serving set sets setting settings several shall share shared short should show shown sign
    signature signed simple since single size slow small so soc some something soon sorry source sources spec special
    specific specification specified specify sre staging standard standards start started starting starts state
    stateful statefulset statefulsets statement status still stop stopped storage store stored string strings strong
    stuff style sub subdomain submit submitted such suffix sum summary supply support supported supports sure
    suspended svc synced syncing system systems table tag tags take taken target targets tcp team teams temporarily
    tenant tenants terminate terminated terminating termination test testing text than that the their them then there
    these they third this those though throttled throttling through throughput ticket time timed timeout times tls to
    today token tokens tomorrow too tool tools top total traffic transport true trusted try trying two type types
    unable unauthenticated unauthorized unavailable undefined under unexpected unique unknown unless unmarshal
    unparseable unreachable unsafe unsigned unsupported until untrusted unused up update updated updates updating
    upgrade upper uppercase url urls usage use used user username users uses using utf v1 v2 valid validate validated
    validates validating validatingadmissionpolicies validatingadmissionpolicy validatingadmissionpolicybinding
    validatingwebhookconfiguration validation validations validator value values variable variables vault verification
    verified verify version versions via violate violated violates violating violation violations visible volume
    volumes wait waiting want was watch we weak web webhook webhooks week welcome well were what when where whether
    which while who whole whose why will window with within without word words work workload workloads works would
    write writes writing written wrong www x509 yaml year yes yet you your yours zero zone
";

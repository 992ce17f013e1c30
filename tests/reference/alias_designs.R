# Random designs with and without linear relations, and which of their columns R finds aliased.
#
#   Rscript alias_designs.R     writes alias_designs.csv (the annotations) and alias_designs.json (what R says)
#
# lm: the coefficients that are NA, and the relations of alias(). lme4: the columns that lmer drops.
suppressMessages({library(lme4); library(jsonlite)})
RNGversion("4.2.0")
set.seed(20261122)

base <- function(m) {
  size <- sample(2:6, m, replace = TRUE)
  g <- factor(sprintf("g%02d", rep(seq_len(m), size)))
  n <- length(g)
  draw <- function(prefix, k, n) factor(paste0(prefix, c(seq_len(k), sample(k, n - k, replace = TRUE))))
  data.frame(
    g = g, a = draw("a", sample(2:4, 1), n), b = draw("b", sample(2:3, 1), n),
    c = draw("c", 2, n), x = round(rnorm(n), 3), y = round(runif(n, 2000, 2030), 2), z = round(rnorm(n), 3)
  )
}
coarser <- function(f, prefix) factor(paste0(prefix, 1 + as.integer(as.integer(f) > 1)))

kinds <- list(
  full_rank = function(d) list(d, "x + y + z + a + c"),
  duplicate = function(d) { d$y <- d$x; list(d, "a + x + y + z") },
  combination = function(d) { d$z <- 2 * d$x - 3 * d$y + 1; list(d, "x + a + y + z") },
  constant = function(d) { d$z <- 7; list(d, "x + z + a") },
  coarser_factor = function(d) { d$b <- coarser(d$a, "b"); list(d, "a + x + b") },
  coarser_first = function(d) { d$b <- coarser(d$a, "b"); list(d, "b + x + a") },
  renamed = function(d) { d$b <- factor(sub("a", "b", d$a)); list(d, "a + b + x") },
  empty_interaction = function(d) { d <- d[!(d$a == "a2" & d$c == "c2"), ]; list(d, "a * c + x") },
  grouping_fixed = function(d) { d$c <- factor(paste0("c", 1 + as.integer(d$g) %% 2)); list(d, "g + x + c") },
  grouping_second = function(d) { d$c <- factor(paste0("c", 1 + as.integer(d$g) %% 2)); list(d, "c + x + g") },
  grouping_number = function(d) { d$y <- 40 + (as.integer(d$g) * 7) %% 11; list(d, "g + y + x") },
  sum_of_factors = function(d) { d$z <- (d$a == "a2") + 2 * (d$c == "c2"); list(d, "a + c + x + z") },
  two_relations = function(d) { d$b <- coarser(d$a, "b"); d$y <- 1 - d$x; list(d, "a + x + b + y + z") },
  no_intercept = function(d) { d$b <- coarser(d$a, "b"); list(d, "0 + a + b + x") }
)

dropped_by_lme4 <- function(formula, d) {
  fit <- suppressMessages(suppressWarnings(lmer(
    formula, d, REML = FALSE,
    control = lmerControl(optimizer = NULL, check.rankX = "message+drop.cols", check.nobs.vs.nlev = "ignore",
                          check.nobs.vs.rankZ = "ignore", calc.derivs = FALSE)
  )))
  names(attr(getME(fit, "X"), "col.dropped"))
}

designs <- list()
rows <- list()
for (repeat_ in 1:6) for (kind in names(kinds)) {
  made <- kinds[[kind]](base(sample(5:9, 1)))
  d <- droplevels(made[[1]])
  fixed <- made[[2]]
  d$response <- rnorm(nrow(d))
  fit <- lm(as.formula(paste("response ~", fixed)), d)
  complete <- alias(fit)$Complete
  id <- sprintf("%s_%d", kind, repeat_)
  designs[[id]] <- list(
    fixed = fixed,
    columns = names(coef(fit)),
    lm_aliased = I(names(coef(fit))[is.na(coef(fit))]),
    lme4_dropped = I(as.character(dropped_by_lme4(as.formula(paste("response ~", fixed, "+ (1 | g)")), d))),
    independent = I(if (is.null(complete)) character() else colnames(complete)),
    relations = if (is.null(complete)) list() else apply(unclass(complete), 1, as.numeric, simplify = FALSE)
  )
  rows[[id]] <- cbind(design = id, d[c("g", "a", "b", "c", "x", "y", "z")])
}
write.csv(do.call(rbind, rows), "alias_designs.csv", row.names = FALSE, quote = FALSE)
made_by <- sprintf("R %s, lme4 %s", getRversion(), packageVersion("lme4"))
writeLines(toJSON(list(made_by = made_by, designs = designs), auto_unbox = TRUE, digits = 10, pretty = TRUE), "alias_designs.json")
